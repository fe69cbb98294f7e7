/** A job as the cluster sees it. */
export interface ClusterJob {
  id: string;
  /** In Slurm's words, for example PENDING, RUNNING, COMPLETED, NODE_FAIL. */
  state: string;
  /** Why it waits, or ended, in Slurm's words; empty: none. */
  reason: string;
  name: string;
  /** Times that it was put back into the queue after a start. */
  restarts: number;
}

/** States that a job does not leave, but by a requeue. Source: "JOB STATE CODES" of squeue(1). */
const FINAL = new Set([
  'BOOT_FAIL',
  'CANCELLED',
  'COMPLETED',
  'DEADLINE',
  'FAILED',
  'NODE_FAIL',
  'OUT_OF_MEMORY',
  'PREEMPTED',
  'REVOKED',
  'TIMEOUT',
]);
const WAITING = new Set([
  'PENDING',
  'CONFIGURING',
  'REQUEUED',
  'REQUEUE_FED',
  'REQUEUE_HOLD',
  'SPECIAL_EXIT',
  'RESV_DEL_HOLD',
]);

export function isFinal({ state }: Pick<ClusterJob, 'state'>): boolean {
  return FINAL.has(state);
}

/** It waits for its start, the first or another one. */
export function isWaiting({ state }: Pick<ClusterJob, 'state'>): boolean {
  return WAITING.has(state);
}

/** Field and width, in the order of a line. The widths are larger than what Slurm or we put there. */
const FIELDS = [
  ['JobID', 20],
  ['State', 20],
  ['RestartCnt', 12],
  ['Name', 80],
  ['Reason', 120],
] as const;

/** Arguments of `squeue` for all jobs of a user that the controller knows, ended ones too; see `parseQueue`. */
export function queueArguments(user: string): string[] {
  const format = FIELDS.map(([field, width]) => `${field}:${width}`).join(',');
  return ['--noheader', '--states=all', `--user=${user}`, `--Format=${format}`];
}

/** @returns the jobs by id. @throws Error with the line that is not understood */
export function parseQueue(stdout: string): Map<string, ClusterJob> {
  const jobs = new Map<string, ClusterJob>();
  for (const line of stdout.split('\n')) {
    if (line.trim() === '') continue;
    const [id = '', state = '', restarts = '', name = '', reason = ''] = columnsOf(line);
    if (!/^\d+$/.test(id) || !/^[A-Z_]+$/.test(state))
      throw new Error(`squeue has printed ${JSON.stringify(line.trim())}`);
    jobs.set(id, { id, state, reason: reason === 'None' ? '' : reason, name, restarts: Number(restarts) || 0 });
  }
  return jobs;
}

function columnsOf(line: string): string[] {
  let from = 0;
  return FIELDS.map(([, width]) => {
    const column = line.slice(from, from + width).trim();
    from += width;
    return column;
  });
}

/** Arguments of `sacct` for jobs that the controller has forgotten; see `parseAccounting`. */
export function accountingArguments(ids: readonly string[]): string[] {
  const format = '--format=JobIDRaw,State,JobName';
  return ['--noheader', '--parsable2', '--allocations', `--jobs=${ids.join(',')}`, format];
}

/** Arguments of `sacct` for the jobs of a user with a name, since the day before yesterday. */
export function accountingByNameArguments(user: string, name: string): string[] {
  const format = '--format=JobIDRaw,State,JobName';
  const which = [`--user=${user}`, `--name=${name}`, '--starttime=now-2days'];
  return ['--noheader', '--parsable2', '--allocations', ...which, format];
}

/** A state may be followed by more: `CANCELLED by 1000`. Lines of another form are left out. */
export function parseAccounting(stdout: string): Map<string, ClusterJob> {
  const jobs = new Map<string, ClusterJob>();
  for (const line of stdout.split('\n')) {
    const [id = '', told = '', name = ''] = line.split('|');
    const [state = '', ...reason] = told.split(' ');
    if (!/^\d+$/.test(id) || !/^[A-Z_]+$/.test(state)) continue;
    jobs.set(id, { id, state, reason: reason.join(' '), name, restarts: 0 });
  }
  return jobs;
}
