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

/** What was said to runs, in the order in which it was said. */
export async function listWords(sql: Sql, runIds: readonly string[]): Promise<WordRow[]> {
  return await sql<WordRow[]>`
    SELECT id, run_id, event FROM workflow_inbox WHERE run_id = ANY(${runIds as string[]}) ORDER BY id`;
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
