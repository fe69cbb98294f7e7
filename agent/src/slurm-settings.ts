import { isAbsolute, normalize } from 'node:path';
import type { SettingsReader } from '@harrier/shared';

/** What an operator may set of Slurm; docs/slurm.md explains it. */
export interface SlurmSettings {
  /** On a file system that this host shares with the nodes, under the same path; undefined: nothing is submitted. */
  directory: string | undefined;
  /** Partition where a request names none; empty: the cluster's default. */
  partition: string;
  /** Jobs at once, at most. */
  maxJobs: number;
  /** Interpreter on the nodes, Python 3.9 or newer. */
  python: string;
  /** SLURM_CONF, where the configuration is not in its usual place. */
  configuration: string | undefined;
}

/** `%` and `\` mean something in the names of files that `sbatch` takes, blanks in the shells of administrators. */
const DIRECTORY = /^[\w./+@:=,-]+$/;
const PARTITION = /^[A-Za-z0-9_.,-]*$/;

export function readSlurmSettings(settings: SettingsReader): SlurmSettings {
  const partition = settings.text('HARRIER_AGENT_SLURM_PARTITION', '');
  if (!PARTITION.test(partition)) {
    settings.problems.push(`HARRIER_AGENT_SLURM_PARTITION must be the name of a partition, not "${partition}"`);
  }
  return {
    directory: directory(settings),
    partition,
    maxJobs: settings.integer('HARRIER_AGENT_SLURM_MAX_JOBS', 1_000, { min: 1, max: 100_000 }),
    python: settings.text('HARRIER_AGENT_SLURM_PYTHON', 'python3'),
    configuration: settings.text('SLURM_CONF'),
  };
}

function directory(settings: SettingsReader): string | undefined {
  const text = settings.text('HARRIER_AGENT_SLURM_DIR');
  if (text === undefined) return undefined;
  if (isAbsolute(text) && DIRECTORY.test(text)) return normalize(text).replace(/\/$/, '');
  settings.problems.push(
    `HARRIER_AGENT_SLURM_DIR must be an absolute path of letters, digits and ./+@:=,-_ on the nodes too, not "${text}"`,
  );
  return undefined;
}
