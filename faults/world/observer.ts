import type { Sql } from '../../control-plane/src/db/sql.ts';
import type { ExecutionRecord } from '../evidence.ts';

/** LogChunk.Stream */
const STDOUT = 1;

/**
 * Watches the database itself: triggers write down every statement that ends an execution, or changes one that has ended, so
 * that a result that was accepted twice shows even though only the second one is left.
 */
export async function installObserver(sql: Sql): Promise<void> {
  await sql`CREATE TABLE observed_endings (
    number bigserial PRIMARY KEY, execution_id uuid NOT NULL, attempt int NOT NULL, state int NOT NULL)`;
  await sql`CREATE FUNCTION observe_ending() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO observed_endings (execution_id, attempt, state) VALUES (NEW.id, NEW.attempt, NEW.state);
      RETURN NULL;
    END $$`;
  await sql`CREATE TRIGGER observe_ending AFTER UPDATE ON executions FOR EACH ROW
    WHEN (NEW.end_time IS NOT NULL AND (OLD.end_time IS NULL
      OR (OLD.state, OLD.attempt, OLD.output_json, OLD.error_code, OLD.end_time)
        IS DISTINCT FROM (NEW.state, NEW.attempt, NEW.output_json, NEW.error_code, NEW.end_time)))
    EXECUTE FUNCTION observe_ending()`;
}

/** How many of the executions with these keys have not ended. */
export async function countUnfinished(sql: Sql, keys: readonly string[]): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    SELECT count(*)::int AS count FROM executions WHERE idempotency_key = ANY(${keys}) AND end_time IS NULL`;
  return row?.count ?? 0;
}

/** What the database has under each key. */
export async function readRecords(sql: Sql, keys: readonly string[]): Promise<Map<string, ExecutionRecord[]>> {
  const rows = await sql<(Omit<ExecutionRecord, 'attempts' | 'endings' | 'chunks'> & { key: string })[]>`
    SELECT id, idempotency_key AS key, state, end_time IS NOT NULL AS final, attempt, error_code AS "errorCode",
      error_message AS "errorMessage", output_json AS "outputJson"
    FROM executions WHERE idempotency_key = ANY(${keys})`;
  const ids = rows.map(({ id }) => id);
  const attempts = await sql<{ id: string; attempt: number; state: number; errorCode: number | null }[]>`
    SELECT execution_id AS id, attempt, state, error_code AS "errorCode" FROM attempts
    WHERE execution_id = ANY(${ids}) ORDER BY attempt`;
  const endings = await sql<{ id: string; attempt: number; state: number }[]>`
    SELECT execution_id AS id, attempt, state FROM observed_endings WHERE execution_id = ANY(${ids}) ORDER BY number`;
  const chunks = await sql<{ id: string; attempt: number; stream: number; offset: number; data: Buffer }[]>`
    SELECT execution_id AS id, attempt, stream, byte_offset AS offset, data FROM log_chunks
    WHERE execution_id = ANY(${ids}) ORDER BY byte_offset`;
  const of = <T extends { id: string }>(found: readonly T[], wanted: string) => found.filter(({ id }) => id === wanted);
  const records = rows.map(({ key, ...row }): [string, ExecutionRecord] => [
    key,
    {
      ...row,
      attempts: of(attempts, row.id),
      endings: of(endings, row.id),
      chunks: of(chunks, row.id).map(({ stream, ...chunk }) => ({
        ...chunk,
        stream: stream === STDOUT ? 'stdout' : 'stderr',
      })),
    },
  ]);
  const byKey = Map.groupBy(records, ([key]) => key);
  return new Map([...byKey].map(([key, found]) => [key, found.map(([, record]) => record)]));
}
