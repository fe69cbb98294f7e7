import {
  type Agent,
  Agent_State as AgentState,
  type Hardware,
  Isolation_Level as Isolation,
  type Hardware_NetworkInterface as NetworkInterface,
  type Resources,
  type Hardware_Slurm as Slurm,
} from '@harrier/shared/gen/agent';
import { formatTime, nameIn } from '../execution/describe.ts';
import { formatBytes } from '../execution/describe-execution.ts';
import { formatFields, formatTable } from '../output/table.ts';
import { gpuProcessTable, gpuTable } from './describe-gpus.ts';

/** Everything about an agent, for a person. */
export function describeAgent(agent: Agent): string {
  const { hardware, isolation } = agent;
  const limits = isolation?.cgroupLimits.join(', ') ?? '';
  const fields = formatFields([
    ['id', agent.id],
    ['name', agent.name],
    ['state', nameIn(AgentState, agent.state) + (agent.drainRequested ? ' (drain requested)' : '')],
    ['work kept until', formatTime(agent.brakeEndTime)],
    ['version', agent.version],
    ['labels', pairs(agent.labels)],
    ['isolation', isolation === undefined ? '' : nameIn(Isolation, isolation.level).toLowerCase() + bounded(limits)],
    ['environments', agent.environments.join(', ')],
    ['not available', pairs(agent.unavailableEnvironments, ': ', '; ')],
    ['executions', `${agent.activeExecutions} of ${agent.slots}`],
    ['capacity', resources(agent.capacity)],
    ['reserved', resources(agent.reserved)],
    ['load', load(agent)],
    ['joined', formatTime(agent.createTime)],
    ['linked', formatTime(agent.linkTime)],
    ['last seen', formatTime(agent.lastSeenTime)],
    ...(hardware === undefined ? [] : hardwareFields(hardware)),
  ]);
  const gpus = hardware?.gpus ?? [];
  return [
    fields,
    gpus.length === 0 ? '' : `\n${gpuTable(gpus)}`,
    section(gpuProcessTable(gpus)),
    section(partitionTable(hardware?.slurm)),
  ].join('');
}

function hardwareFields({ cpu, memoryBytes, os, disks, networks, containerEngine, slurm, tools }: Hardware) {
  const cores =
    cpu === undefined ? '' : `, ${cpu.physicalCores} cores, ${cpu.logicalCores} threads, ${cpu.architecture}`;
  const usedOf = disks.map(
    ({ mount, sizeBytes, availableBytes }) =>
      `${mount} ${formatBytes(availableBytes)} free of ${formatBytes(sizeBytes)}`,
  );
  return [
    ['system', os === undefined ? '' : `${os.distribution} ${os.release}, ${os.platform} ${os.kernel}`],
    ['processor', `${cpu?.model ?? ''}${cores}`],
    ['memory', formatBytes(memoryBytes)],
    ['disks', usedOf.join('; ')],
    ['networks', networks.map(describeNetwork).join('; ')],
    [
      'containers',
      containerEngine === undefined
        ? ''
        : `Docker ${containerEngine.version} (${containerEngine.runtimes.join(', ')}), ${containerEngine.gpus ? 'with' : 'without'} GPUs`,
    ],
    ['slurm', slurm === undefined ? '' : describeSlurm(slurm)],
    ['tools', tools.map(({ name, version, path }) => `${name} ${version} (${path})`).join('; ')],
  ] as const;
}

function load({ load: now }: Agent): string {
  if (now === undefined) return '';
  const averages = [now.load1m, now.load5m, now.load15m].map((value) => value.toFixed(2)).join(' ');
  return `${Math.round(now.cpuRatio * 100)}% of the processors, ${averages}, ${formatBytes(now.memoryAvailableBytes)} of memory available`;
}

function resources(of: Resources | undefined): string {
  if (of === undefined) return '';
  const { cpu, memoryBytes, gpus, slurmJobs } = of;
  const jobs = slurmJobs === 0 ? '' : `, ${slurmJobs} jobs of Slurm`;
  return `${Number(cpu.toFixed(3))} processors, ${formatBytes(memoryBytes)} of memory, ${gpus} GPUs${jobs}`;
}

function describeNetwork({ name, up, bitsPerSecond, addresses }: NetworkInterface): string {
  const speed = bitsPerSecond === 0n ? '' : ` ${Number(bitsPerSecond / 1_000_000n) / 1000} Gbit/s`;
  return `${name}${speed}${up ? '' : ' down'}${addresses.length === 0 ? '' : ` ${addresses.join(' ')}`}`;
}

function describeSlurm({ version, cluster, unavailableReason }: Slurm): string {
  return `${version}${cluster === '' ? '' : `, cluster ${cluster}`}${unavailableReason === '' ? '' : `: ${unavailableReason}`}`;
}

function partitionTable(slurm: Slurm | undefined): string {
  const rows = (slurm?.partitions ?? []).map(({ name, isDefault, up, nodes, gres, timeLimitSeconds }) => [
    isDefault ? `${name} (default)` : name,
    up ? 'up' : 'down',
    String(nodes),
    gres.join(', ') || '-',
    timeLimitSeconds === 0n ? 'none' : `${timeLimitSeconds} s`,
  ]);
  return rows.length === 0 ? '' : formatTable(['PARTITION', 'STATE', 'NODES', 'GRES', 'TIME LIMIT'], rows);
}

function section(table: string): string {
  return table === '' ? '' : `\n${table}`;
}

function pairs(of: Readonly<Record<string, string>>, between = '=', behind = ', '): string {
  return Object.entries(of)
    .map(([name, value]) => `${name}${between}${value}`)
    .join(behind);
}

function bounded(limits: string): string {
  return limits === '' ? '' : ` (${limits} of each attempt bounded)`;
}
