import type { Assignment } from '@harrier/shared/gen/link';
import { durationMs } from './start-message.ts';

const MIB = 1024 * 1024;
/** What the runtime needs beside the code: interpreters, and the file that `/tmp` is. */
const RUNTIME_MIB = 128;
/** Beyond the attempt's own timeout, so that this ends it and not Slurm: the start of the job, and its last words. */
const TIME_MARGIN_MS = 120_000;
const MINUTE_MS = 60_000;

export interface JobPlace {
  /** The attempt's directory on the shared file system. */
  directory: string;
  /** Where the request names none; empty: the cluster's default. */
  partition: string;
}

/** Name of an attempt's job: it is looked for by that. */
export function jobName({ executionId, attempt }: { executionId: string; attempt: number }): string {
  return `${executionId}.${attempt}`;
}

/**
 * The options of `sbatch` for an attempt. Nothing of the caller's is in the script, and what is in the options was checked by
 * the schema; each is one argument.
 */
export function sbatchArguments(assignment: Assignment, { directory, partition }: JobPlace): string[] {
  const { slurm, limits } = assignment;
  const options: [string, string | number | undefined][] = [
    ['job-name', jobName(assignment.ref ?? { executionId: '', attempt: 0 })],
    ['chdir', directory],
    ['output', 'job.log'],
    ['open-mode', 'append'],
    // The commands get hardly any variables (see slurm-tools.ts). For less than all of them, Slurm 22.05 starts the user's login shell
    // in each job and asks it for more, which may take longer than the job.
    ['export', 'ALL'],
    ['nodes', 1],
    ['ntasks', 1],
    ['partition', slurm?.partition || partition || undefined],
    ['gres', slurm?.gres || (limits?.gpus ? `gpu:${limits.gpus}` : undefined)],
    ['cpus-per-task', slurm?.cpusPerTask || Math.max(1, Math.ceil(limits?.cpu ?? 0))],
    ['mem', `${memoryMib(assignment)}M`],
    ['time', timeMinutes(assignment)],
    ['account', slurm?.account || undefined],
    ['qos', slurm?.qos || undefined],
    ['constraint', slurm?.constraint || undefined],
  ];
  const given = options.flatMap(([name, value]) => (value === undefined ? [] : [`--${name}=${value}`]));
  // A job that Slurm starts again would run code twice under one number: the control plane tries again, with another one.
  return ['--parsable', '--no-requeue', ...given];
}

/** The code's memory, with its `/tmp` and `/dev/shm`, which are memory too. */
function memoryMib({ limits }: Assignment): number {
  return Math.ceil(Number(limits?.memoryBytes ?? 0) / MIB) + RUNTIME_MIB;
}

/** Whole minutes, which is what Slurm counts in; undefined: the partition's own limit. */
function timeMinutes({ slurm, timeout }: Assignment): number | undefined {
  const asked = durationMs(slurm?.time);
  if (asked > 0) return Math.ceil(asked / MINUTE_MS);
  const timeoutMs = durationMs(timeout);
  return timeoutMs > 0 ? Math.ceil((timeoutMs + TIME_MARGIN_MS) / MINUTE_MS) : undefined;
}

/**
 * The script of every job. It finds the attempt in its working directory, which `--chdir` names. The interpreter keeps the byte
 * code of the runtime beside it, for the jobs after the first: compiling takes a third of a short job's time.
 * @param python interpreter on the nodes, of the operator
 */
export function jobScript(python: string): string {
  return `#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
export PATH
unset LC_ALL
exec ${quoted(python)} -I -S runtime/slurm_job.py
`;
}

/** As one word of a shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
