import { create } from '@bufbuild/protobuf';
import { AgentSchema, Agent_State as AgentState, Hardware_Gpu_State as GpuState } from '@harrier/shared/gen/agent';
import { expect, test } from 'vitest';
import { describeAgent } from './describe-agent.ts';
import { gpuCell } from './describe-gpus.ts';

const GIB = 1024n ** 3n;
const CARDS = create(AgentSchema, {
  hardware: {
    gpus: [
      {
        uuid: 'GPU-a',
        model: 'NVIDIA H200',
        state: GpuState.RESERVED,
        executionId: 'e1',
        memoryBytes: 140n * GIB,
        memoryUsedBytes: 70n * GIB,
        utilizationRatio: 0.9,
        temperatureCelsius: 61,
        powerWatts: 612.4,
        powerLimitWatts: 700,
        uncorrectedEccErrors: 0n,
        processes: [{ pid: 7, name: 'python3', memoryBytes: 69n * GIB }],
      },
      {
        uuid: 'GPU-b',
        index: 1,
        state: GpuState.QUARANTINED,
        stateReason: 'Xid 79',
        lastXid: 79,
        memoryBytes: 80n * GIB,
      },
      {
        uuid: 'GPU-c',
        index: 2,
        state: GpuState.DIVIDED,
        memoryBytes: 40n * GIB,
        memoryUsedBytes: 8n * GIB,
        migInstances: [{ uuid: 'MIG-c', profile: '2g.20gb', state: GpuState.FREE, memoryBytes: 20n * GIB }],
      },
      { index: 3, vendor: 'ASPEED', state: GpuState.UNMANAGED, stateReason: 'the agent gives only cards of NVIDIA' },
    ],
  },
}).hardware?.gpus;

test('cards are one cell: what is free of what is given, what is not well, how busy they are', () => {
  // Those that do not tell how busy they are do not count as idle.
  expect(gpuCell(CARDS ?? [])).toBe('1/3 free, 1 quarantined, 90%');
  expect(gpuCell((CARDS ?? []).slice(1))).toBe('1/2 free, 1 quarantined');
  expect(gpuCell([])).toBe('-');
  expect(gpuCell((CARDS ?? []).slice(3))).toBe('-');
});

test('an agent is described with its capacity, what is reserved, and every card with its reason', () => {
  const text = describeAgent(
    create(AgentSchema, {
      id: 'a1',
      name: 'gpu-1',
      state: AgentState.OFFLINE,
      brakeEndTime: { seconds: 1_800_000_000n },
      capacity: { cpu: 64, memoryBytes: 512n * GIB, gpus: 2 },
      reserved: { cpu: 1.5, memoryBytes: 2n * GIB, gpus: 1 },
      hardware: {
        gpus: CARDS ?? [],
        memoryBytes: 512n * GIB,
        networks: [{ name: 'ens1f0', bitsPerSecond: 100_000_000_000n, up: true, addresses: ['192.0.2.7'] }],
        containerEngine: { version: '28.0', runtimes: ['nvidia', 'runc'], gpus: true },
        slurm: {
          version: '22.05.8',
          cluster: 'lab',
          partitions: [{ name: 'gpu', isDefault: true, up: true, nodes: 4 }],
        },
      },
    }),
  );
  const lines = text.split('\n').map((line) => line.split('\t'));
  expect(lines).toContainEqual(['capacity', '64 processors, 512.0 GiB of memory, 2 GPUs']);
  expect(lines).toContainEqual(['reserved', '1.5 processors, 2.0 GiB of memory, 1 GPUs']);
  expect(lines).toContainEqual(['networks', 'ens1f0 100 Gbit/s 192.0.2.7']);
  expect(lines).toContainEqual(['containers', 'Docker 28.0 (nvidia, runc), with GPUs']);
  expect(lines).toContainEqual(['gpu (default)', 'up', '4', '-', 'none']);
  expect(lines).toContainEqual(['0', '7', 'python3', '69.0 GiB']);
  expect(text).toContain('work kept until\t2027-');
  const cards = lines.filter(([, state]) => Object.keys(GpuState).includes(state ?? ''));
  expect(
    cards.map(([index, state, , uuid, memory, use, temperature, power, ecc, xid, execution, reason]) => {
      return [index, state, uuid, memory, use, temperature, power, ecc, xid, execution, reason];
    }),
  ).toEqual([
    ['0', 'RESERVED', 'GPU-a', '70.0 GiB of 140.0 GiB', '90%', '61 °C', '612 of 700 W', '0', '-', 'e1', '-'],
    ['1', 'QUARANTINED', 'GPU-b', '80.0 GiB', '-', '-', '-', '-', '79', '-', 'Xid 79'],
    ['2', 'DIVIDED', 'GPU-c', '8.0 GiB of 40.0 GiB', '-', '-', '-', '-', '-', '-', '-'],
    ['', 'FREE', 'MIG-c', '20.0 GiB', '-', '-', '-', '-', '-', '-', '-'],
    ['3', 'UNMANAGED', '-', '0 B', '-', '-', '-', '-', '-', '-', 'the agent gives only cards of NVIDIA'],
  ]);
});
