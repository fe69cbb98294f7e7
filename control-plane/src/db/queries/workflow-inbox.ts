import type { Sql } from '../sql.ts';

export interface WordRow {
  id: string;
  run_id: string;
  event: unknown;
}

/**
 * Writes down what a caller says to a run, if it is there. It is taken into account with the next step, whatever dies.
 */
export async function insertWord(sql: Sql, word: { tenantId: string; runId: string; event: object }): Promise<void> {
  await sql`
    INSERT INTO workflow_inbox (tenant_id, run_id, event)
    SELECT tenant_id, id, ${sql.json(word.event as never)} FROM workflow_runs
    WHERE tenant_id = ${word.tenantId} AND id = ${word.runId} FOR KEY SHARE`;
}

/** A replica that hangs while it says a signal holds the run that it has locked no longer. */
const SIGNAL_TIMEOUT = '10s';

/** A word that a node may wait for. */
interface Signal {
  tenantId: string;
  runId: string;
  /** Of the node. */
  path: string;
  payload: { json: string };
}

/**
 * Writes down a signal, if its node waits for one and none is written down already. The run is locked for that: of several at
 * once one is written down, and none when a step has just ended the wait. A step that ends it and is not stored yet may come
 * first nevertheless: what was said is then too late, of which the log tells.
 * @returns whether it was
 */
export async function insertSignal(sql: Sql, { tenantId, runId, path, payload }: Signal): Promise<boolean> {
  const event = { type: 'signalled', path, payload };
  return await sql.begin(async (transaction) => {
    // By a statement of its own: what the next one sees is what there is once the lock is had.
    await transaction`
      SELECT set_config('idle_in_transaction_session_timeout', ${SIGNAL_TIMEOUT}, true) FROM workflow_runs
      WHERE tenant_id = ${tenantId} AND id = ${runId} FOR NO KEY UPDATE`;
    const said = await transaction`
      INSERT INTO workflow_inbox (tenant_id, run_id, event)
      SELECT tenant_id, run_id, ${transaction.json(event)} FROM workflow_nodes AS node
      WHERE tenant_id = ${tenantId} AND run_id = ${runId} AND path = ${path} AND instance->>'phase' = 'signal'
        AND NOT EXISTS (SELECT FROM workflow_inbox AS word
          WHERE word.tenant_id = node.tenant_id AND word.run_id = node.run_id
            AND word.event->>'type' = 'signalled' AND word.event->>'path' = node.path)
      RETURNING id`;
    return said.length > 0;
  });
}

/** What was said to runs, in the order in which it was said. */
export async function listWords(sql: Sql, runs: readonly { id: string; tenant_id: string }[]): Promise<WordRow[]> {
  const [tenantIds, ids] = [runs.map((run) => run.tenant_id), runs.map((run) => run.id)];
  return await sql<WordRow[]>`
    SELECT id, run_id, event FROM workflow_inbox
    WHERE (tenant_id, run_id) IN (SELECT * FROM unnest(${tenantIds}::uuid[], ${ids}::uuid[])) ORDER BY id`;
}

/** Whether a node waits for a signal, as of the last step that is stored. */
export async function awaitsSignal(
  sql: Sql,
  tenantId: string,
  runId: string,
  path: string,
): Promise<boolean | undefined> {
  const [row] = await sql<{ waits: boolean }[]>`
    SELECT instance->>'phase' = 'signal' AS waits FROM workflow_nodes
    WHERE tenant_id = ${tenantId} AND run_id = ${runId} AND path = ${path}`;
  return row?.waits;
}
