import { Execution_State as State } from '@harrier/shared/gen/execution';

/** An attempt by the names of both sides. */
export interface NamedAttempt {
  executionId: string;
  attempt: number;
}

/** What becomes of attempts when their agent is linked anew. Each of `active` is in exactly one of the first three. */
export interface Reconciled<Row> {
  /** The agent has them and they are wanted: it goes on, and sends again what is not stored. */
  resume: Row[];
  /** The agent's process is the one that they were given to, and it has not heard of them: they wait again, as they were.
   * None of them has started. */
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
 * @param sameProcess it is the process with which this was done the last time
 */
export function reconcileAttempts<Row extends { id: string; attempt: number; state: number }>(
  active: readonly Row[],
  held: readonly NamedAttempt[],
  sameProcess: boolean,
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
    if (!told.has(key)) (sameProcess && row.state < State.RUNNING ? result.again : result.lost).push(row);
  }
  return result;
}

function keyOf(executionId: string, attempt: number): string {
  return `${executionId} ${attempt}`;
}
