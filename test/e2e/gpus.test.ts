import { join } from 'node:path';
import { Agent_State as AgentState, Hardware_Gpu_State as GpuState } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, execute, finished, get, untilState } from '../support/executions.ts';
import { GpuHost } from '../support/gpu-host.ts';
import { runProgram } from '../support/program.ts';
import { command } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { environment, REPOSITORY } from '../support/workspace.ts';

const host = new GpuHost();
const stack = await startStack({ agents: [host.agent] });
const { executions, clients } = stack;
const [agent] = stack.agents;
if (agent === undefined) throw new Error('there is no agent');

/** Locks the cards that it sees for as long as it runs: two that have the same card find out by the kernel. */
const JOB = `
import fcntl, os, sys, time
wanted, seconds = int(sys.argv[1]), float(sys.argv[2])
nodes = sorted(n for n in os.listdir('/dev') if n.startswith('nvidia') and n[6:].isdigit())
visible = os.environ['CUDA_VISIBLE_DEVICES'].split(',')
if len(nodes) != wanted or len(visible) != wanted:
    sys.exit(f'asked for {wanted}, sees {nodes} and {visible}')
if sorted(uuid[4] for uuid in visible) != [n[6:] for n in nodes]:
    sys.exit(f'the nodes {nodes} are not of {visible}')
held = [open('/dev/' + n) for n in nodes]
for device in held:
    try:
        fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f'OVERLAP on {device.name} of {visible}')
print('up', flush=True)
time.sleep(seconds)
`;

function job(gpus: number, seconds: number) {
  const argv = ['/usr/bin/python3', '-c', JOB, String(gpus), String(seconds)];
  const target = { case: 'command', value: { argv } } as const;
  return { target, taskClass: 'gpu', limits: { gpus } };
}

async function harrier(...args: string[]) {
  const { url, adminKey } = stack.controlPlane;
  const env = environment({ HARRIER_SERVER_URL: url, HARRIER_API_KEY: adminKey });
  return await runProgram({ argv: [process.execPath, join(REPOSITORY, 'cli/bin/harrier.mjs'), ...args], env });
}

async function cards() {
  const { agent: found } = await clients.agents.getAgent({ id: await stack.idOf('agent-1') });
  return (found?.hardware?.gpus ?? []).filter(({ uuid }) => uuid.startsWith('GPU-'));
}

async function untilCard(uuid: string, state: GpuState) {
  return await until(`card ${uuid} to be in state ${state}`, async () => {
    return (await cards()).find((card) => card.uuid === uuid && card.state === state);
  });
}

test('a host tells its cards with figures', async () => {
  await stack.untilOnline('agent-1');
  const told = await until('the cards', async () => {
    const found = await cards();
    return found.length === host.uuids.length && found;
  });
  expect(told[0]).toMatchObject({
    uuid: host.uuids[0],
    model: 'NVIDIA Stand-In',
    driverVersion: '570.86.15',
    cudaVersion: '12.8',
    state: GpuState.FREE,
    memoryBytes: 8192n * 1024n * 1024n,
  });
});

test('a job has whole cards, sees no others, and is named by them', async () => {
  const id = await create(executions, job(2, 1));
  const running = await untilState(executions, id, State.RUNNING);
  expect(running.gpuUuids).toHaveLength(2);
  const taken = await until('the cards to be reserved', async () => {
    const reserved = (await cards()).filter(({ state }) => state === GpuState.RESERVED);
    return reserved.length === 2 && reserved;
  });
  expect(taken.map(({ executionId }) => executionId)).toEqual([id, id]);
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, exitCode: 0 });
  await until('the cards to be free', async () => (await cards()).every(({ state }) => state === GpuState.FREE));
});

test('code that asks for no card sees none', async () => {
  const argv = ['/bin/sh', '-c', 'ls /dev | grep -c nvidia; echo "visible: $CUDA_VISIBLE_DEVICES"'];
  const done = await execute(executions, { target: { case: 'command', value: { argv } } });
  expect(Buffer.from(done.stdoutTail).toString()).toBe('0\nvisible: \n');
});

test('a card on which something is left is quarantined alone, until an operator clears it', async () => {
  const id = await create(executions, job(1, 0.5));
  const { gpuUuids } = await untilState(executions, id, State.RUNNING);
  const [uuid = ''] = gpuUuids;
  host.dirty(uuid);
  await finished(executions, id);
  const card = await untilCard(uuid, GpuState.QUARANTINED);
  expect(card.stateReason).toContain(`of execution ${id} has left something on it: process 4711 (job) with 400 MiB`);
  expect((await cards()).filter(({ state }) => state === GpuState.FREE)).toHaveLength(host.uuids.length - 1);
  const agentId = await stack.idOf('agent-1');
  const still = await harrier('agents', 'clear-gpu', 'agent-1', uuid);
  expect(still).toMatchObject({ code: 2, stderr: expect.stringContaining(`${uuid} stays quarantined: something is`) });
  const shown = await harrier('agents', 'get', 'agent-1');
  expect(shown.stdout).toMatch(new RegExp(`QUARANTINED\t.*${uuid}\t.*something is still on it: process 4711`));
  expect((await harrier('agents', 'ls')).stdout).toContain(
    `${host.uuids.length - 1}/${host.uuids.length} free, 1 quarantined`,
  );
  // It is still known when the agent is started again.
  await agent.stop();
  agent.startAgain();
  await stack.untilOnline('agent-1');
  expect(await untilCard(uuid, GpuState.QUARANTINED)).toMatchObject({ uuid });
  host.dirty(uuid, false);
  const cleared = await harrier('agents', 'clear-gpu', 'agent-1', String(card.index));
  expect(cleared).toMatchObject({ code: 0, stdout: `${uuid} FREE\n` });
  await expect(clients.agents.clearGpu({ id: agentId, gpuUuid: 'GPU-none' })).rejects.toThrow('has no GPU GPU-none');
});

test('a card that is lost in mid-run is told, the host goes on', async () => {
  const id = await create(executions, job(1, 0.5));
  const { gpuUuids } = await untilState(executions, id, State.RUNNING);
  const [uuid = ''] = gpuUuids;
  host.lose(uuid);
  await finished(executions, id);
  const lost = await untilCard(uuid, GpuState.QUARANTINED);
  expect(lost.stateReason).toContain('the driver does not list it any more: Unable to determine the device handle');
  expect(await execute(executions, job(host.uuids.length - 1, 0))).toMatchObject({ state: State.SUCCEEDED });
  host.lose(uuid, false);
  await clients.agents.clearGpu({ id: await stack.idOf('agent-1'), gpuUuid: uuid });
  await untilCard(uuid, GpuState.FREE);
});

test('a driver that hangs takes its cards out of use as long as it does, and holds up nothing else', async () => {
  host.hang();
  for (const uuid of host.uuids) {
    expect((await untilCard(uuid, GpuState.QUARANTINED)).stateReason).toContain('nvidia-smi did not answer in time');
  }
  const { agent: found } = await clients.agents.getAgent({ id: await stack.idOf('agent-1') });
  expect(found).toMatchObject({ state: AgentState.ONLINE, capacity: { gpus: 0 } });
  const waiting = await create(executions, job(1, 0));
  expect(await execute(executions, command('true'))).toMatchObject({ state: State.SUCCEEDED });
  host.hang(false);
  expect(await finished(executions, waiting)).toMatchObject({ state: State.SUCCEEDED });
});

test('two jobs on one card never overlap, whatever is submitted, and whenever the agent is started again', {
  timeout: 500_000,
}, async () => {
  const random = generator(20_261_121);
  const ids: string[] = [];
  for (let n = 0; n < 200; n++) {
    const gpus = 1 + Math.floor(random() ** 2 * host.uuids.length);
    ids.push(await create(executions, job(gpus, random() * 0.1)));
    if (n % 40 !== 39) continue;
    await agent.stop(random() < 0.7 ? 'SIGKILL' : 'SIGTERM');
    agent.startAgain();
    await stack.untilOnline('agent-1');
  }
  const failed: string[] = [];
  for (const id of ids) {
    let seen: unknown;
    const isFinal = async () => {
      const execution = await get(executions, id);
      seen = [execution.state, execution.waitingReason];
      return execution.state >= State.SUCCEEDED && execution;
    };
    const { state, stderrTail, error } = await until(`execution ${id} to end`, isFinal, { seen: () => seen });
    if (state !== State.SUCCEEDED) failed.push(`${id}: ${error?.message} ${Buffer.from(stderrTail).toString()}`);
  }
  expect(failed).toEqual([]);
  await until('the cards to be free', async () => (await cards()).every(({ state }) => state === GpuState.FREE));
});

/** The same numbers in every run ("mulberry32"). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
