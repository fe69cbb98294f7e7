import { Execution_State as State } from '@harrier/shared/gen/execution';

/** An attempt by the names of both sides. */
export interface NamedAttempt {
  executionId: string;
  attempt: number;
}

/** What the database gives to an agent. */
export interface GivenRow {
  id: string;
  attempt: number;
  state: number;
  /** How long ago it was assigned. */
  assigned_ms: number;
  reservation: { slurm_jobs?: number } | null;
}

/** Since when an agent knows what it was given. */
export interface KnownSince {
  /** It is the process with which this was done the last time. */
  sameProcess: boolean;
  /** For how long the launcher has run; undefined: not known. */
  launcherAgeMs: number | undefined;
}

/** The age of an assignment is told by the database's clock, that of a launcher by its host's: neither runs so wrong. */
const CLOCKS_MS = 1_000;
const CLOCKS_RATIO = 1.001;

/** What becomes of attempts when their agent is linked anew. Each of `active` is in exactly one of the first three. */
export interface Reconciled<Row> {
  /** The agent has them and they are wanted: it goes on, and sends again what is not stored. */
  resume: Row[];
  /** None of them has started: they wait again, as they were. */
  again: Row[];
  /** They went with a former process of the agent, or with its launcher or host. */
  lost: Row[];
  /** The agent has them and they are not wanted: they ended, or were given to another one. */
  drop: NamedAttempt[];
}

/**
 * Compares what the database gives to an agent with what the agent has.
 * @param active what the database gives to it
 * @param held what it says to have; a name that comes twice counts once
 * @param since what it would know of; see `KnownSince`
 */
export function reconcileAttempts<Row extends GivenRow>(
  active: readonly Row[],
  held: readonly NamedAttempt[],
  since: KnownSince,
): Reconciled<Row> {
  const wanted = new Map(active.map((row) => [keyOf(row.id, row.attempt), row]));
  const told = new Map(held.map((name) => [keyOf(name.executionId, name.attempt), name]));
  const result: Reconciled<Row> = { resume: [], again: [], lost: [], drop: [] };
  for (const [key, name] of told) {
    const row = wanted.get(key);
    if (row === undefined) result.drop.push({ executionId: name.executionId, attempt: name.attempt });
    else result.resume.push(row);
  }
  for (const [key, row] of wanted) {
    if (!told.has(key)) (hasNotStarted(row, since) ? result.again : result.lost).push(row);
  }
  return result;
}

/**
 * Whether an attempt that the agent does not have has never started. The process that it was given to would have it otherwise;
 * so would a launcher that has run since before: it outlives the agent, and forgets nothing that is not stored. Jobs of Slurm are
 * not the launcher's.
 */
function hasNotStarted(row: GivenRow, { sameProcess, launcherAgeMs }: KnownSince): boolean {
  if (row.state >= State.RUNNING) return false;
  if (sameProcess) return true;
  const isLaunchers = (row.reservation?.slurm_jobs ?? 0) === 0;
  return isLaunchers && launcherAgeMs !== undefined && row.assigned_ms * CLOCKS_RATIO + CLOCKS_MS < launcherAgeMs;
}

function keyOf(executionId: string, attempt: number): string {
  return `${executionId} ${attempt}`;
}
