import { findExecutable } from './find-executable.ts';
import type { HardwareFacts, Probe } from './probe.ts';
import { askTool, runTool, type ToolAnswer } from './run-tool.ts';
import { versionIn } from './tools.ts';

type Slurm = Exclude<NonNullable<HardwareFacts['slurm']>, { $typeName: string }>;
type Partition = Exclude<NonNullable<Slurm['partitions']>[number], { $typeName: string }>;

const EVERY_MS = 60_000;
/** A controller that is down is waited for by the tools for long. */
const TIMEOUT_MS = 5_000;
/** Partition, state, time limit, nodes, generic resources: one line for each that differs. */
const PARTITIONS = ['-h', '-o', '%P|%a|%l|%D|%G'];
const SHOWN_CHARS = 300;
const DAY_S = 86_400;

/** The cluster that this host can submit to, when it has Slurm's commands. */
export function slurmProbe(searchPath: string): Probe {
  return {
    everyMs: EVERY_MS,
    read: async () => {
      const [sinfo, sbatch, scontrol] = await Promise.all(
        ['sinfo', 'sbatch', 'scontrol'].map((name) => findExecutable(name, searchPath)),
      );
      if (sinfo === undefined || sbatch === undefined) return { slurm: undefined } as HardwareFacts;
      const [version, partitions, configuration] = await Promise.all([
        runTool(sinfo, ['--version'], TIMEOUT_MS),
        askTool(sinfo, PARTITIONS, TIMEOUT_MS),
        scontrol === undefined ? undefined : runTool(scontrol, ['show', 'config'], TIMEOUT_MS),
      ]);
      const reason = failureOf(partitions);
      const slurm: Slurm = {
        version: versionIn(version ?? '') ?? '',
        cluster: /^ClusterName\s*=\s*(\S+)/m.exec(configuration ?? '')?.[1] ?? '',
        partitions: partitions.kind === 'ended' && reason === '' ? parsePartitions(partitions.output) : [],
        unavailableReason: reason,
      };
      return { slurm };
    },
  };
}

/** Reads the answer of `sinfo -h -o '%P|%a|%l|%D|%G'`; nodes of one partition in several lines count together. */
export function parsePartitions(text: string): Partition[] {
  const found = new Map<string, Partition & { nodes: number; gres: string[] }>();
  for (const line of text.split('\n')) {
    const [label = '', state, limit = '', nodes, gres = ''] = line.trim().split('|');
    if (state === undefined) continue;
    const name = label.replace(/\*$/, '');
    const before = found.get(name) ?? { name, nodes: 0, gres: [] };
    // Resources may name where they are: `gpu:h100:8(S:0-1)`.
    const named = gres.split(',').map((one) => one.replace(/\(.*\)$/, ''));
    found.set(name, {
      name,
      isDefault: label.endsWith('*'),
      up: state === 'up',
      nodes: before.nodes + (Number(nodes) || 0),
      gres: [...new Set([...before.gres, ...named.filter((one) => one !== '')])],
      timeLimitSeconds: BigInt(timeLimitSeconds(limit)),
    });
  }
  return [...found.values()];
}

/** `days-hours:minutes:seconds`, of which the first parts may be missing; 0 for `infinite`. */
function timeLimitSeconds(text: string): number {
  const match = /^(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)$/.exec(text);
  if (match === null) return 0;
  const [days = 0, hours = 0, minutes = 0, seconds = 0] = match.slice(1).map((part) => Number(part ?? 0));
  return days * DAY_S + hours * 3600 + minutes * 60 + seconds;
}

function failureOf(answer: ToolAnswer): string {
  if (answer.kind === 'hangs') return `the controller does not answer: sinfo took longer than ${TIMEOUT_MS / 1000} s`;
  if (answer.kind !== 'ended') return 'sinfo cannot be run';
  if (answer.code === 0) return '';
  const said = answer.errors.trim().replaceAll(/\s+/g, ' ').slice(0, SHOWN_CHARS);
  return `the controller cannot be asked: ${said || `sinfo ended with exit code ${answer.code}`}`;
}
