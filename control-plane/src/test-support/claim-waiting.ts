import { Execution_State as State } from '@harrier/shared/gen/execution';
import {
  assignClaims,
  type Claim,
  type ClaimedExecution,
  readLanes,
  type WaitingExecution,
} from '../db/queries/claim-executions.ts';
import type { Sql } from '../db/sql.ts';

type Chosen = Omit<Claim, 'reservation'> & Partial<Claim>;

/** Reads what is due, lets `choose` pick agents for some of it, and assigns those. */
export async function claimWaiting(
  sql: Sql,
  choose: (waiting: WaitingExecution[]) => Chosen[] | Promise<Chosen[]>,
): Promise<{ waiting: WaitingExecution[]; claimed: ClaimedExecution[] }> {
  const lanes = await readLanes(sql, { after: undefined, lanes: 1_000, entries: 1_000 });
  const waiting = lanes.flatMap(({ entries }) => entries);
  const claims = (await choose(waiting)).map((claim) => ({ reservation: null, ...claim }));
  const assigned = new Map((await assignClaims(sql, claims, State.ASSIGNED)).map((row) => [row.id, row]));
  const claimed = waiting.flatMap((entry) => {
    const row = assigned.get(entry.id);
    return row === undefined ? [] : [{ ...entry, ...row }];
  });
  return { waiting, claimed };
}
