import { ScheduleFiring_State as FiringState } from '@harrier/shared/gen/schedule';
import type { Sql } from '../../control-plane/src/db/sql.ts';
import type {
  ExecutionRecord,
  FiringChange,
  FiringRecord,
  LogLine,
  NodeExecution,
  RunRecord,
  ScheduleRecord,
  StartedRecord,
} from '../evidence.ts';

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
  await sql`CREATE TABLE observed_run_endings (number bigserial PRIMARY KEY, run_id uuid NOT NULL, state int NOT NULL)`;
  await sql`CREATE FUNCTION observe_run_ending() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO observed_run_endings (run_id, state) VALUES (NEW.id, NEW.state);
      RETURN NULL;
    END $$`;
  await sql`CREATE TRIGGER observe_run_ending AFTER UPDATE ON workflow_runs FOR EACH ROW
    WHEN (NEW.end_time IS NOT NULL AND (OLD.end_time IS NULL
      OR (OLD.state, OLD.output_json, OLD.end_time) IS DISTINCT FROM (NEW.state, NEW.output_json, NEW.end_time)))
    EXECUTE FUNCTION observe_run_ending()`;
  await installScheduleObserver(sql);
}

/** Each state of a time of a schedule, with how many of those before it were not over at that moment. */
async function installScheduleObserver(sql: Sql): Promise<void> {
  await sql`CREATE TABLE observed_firings (number bigserial PRIMARY KEY, schedule_id uuid NOT NULL, time timestamptz NOT NULL,
    state int NOT NULL, at timestamptz NOT NULL, open_before int NOT NULL)`;
  await sql`CREATE INDEX ON observed_firings (schedule_id)`;
  const open =
    sql.unsafe(`f.state IN (${FiringState.PENDING}, ${FiringState.QUEUED}) OR f.state = ${FiringState.STARTED} AND (
    EXISTS (SELECT FROM executions AS e WHERE e.id = f.execution_id AND e.end_time IS NULL)
    OR EXISTS (SELECT FROM workflow_runs AS r WHERE r.id = f.run_id AND r.end_time IS NULL))`);
  await sql`CREATE FUNCTION observe_firing() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO observed_firings (schedule_id, time, state, at, open_before)
      SELECT NEW.schedule_id, NEW.time, NEW.state, clock_timestamp(), count(*) FROM schedule_firings AS f
      WHERE f.schedule_id = NEW.schedule_id AND f.time < NEW.time AND (${open});
      RETURN NULL;
    END $$`;
  await sql`CREATE TRIGGER observe_firing AFTER INSERT ON schedule_firings FOR EACH ROW EXECUTE FUNCTION observe_firing()`;
  await sql`CREATE TRIGGER observe_firing_change AFTER UPDATE ON schedule_firings FOR EACH ROW
    WHEN ((OLD.state, OLD.execution_id, OLD.run_id) IS DISTINCT FROM (NEW.state, NEW.execution_id, NEW.run_id))
    EXECUTE FUNCTION observe_firing()`;
}

/** How many of the executions and runs with these keys have not ended, and of the executions of those runs. */
export async function countUnfinished(sql: Sql, keys: readonly string[], runKeys: readonly string[]): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    WITH runs AS (SELECT id, end_time FROM workflow_runs WHERE idempotency_key = ANY(${runKeys}))
    SELECT (SELECT count(*) FROM runs WHERE end_time IS NULL)::int
      + (SELECT count(*) FROM executions WHERE end_time IS NULL
         AND (idempotency_key = ANY(${keys}) OR labels->>'workflow-run' IN (SELECT id::text FROM runs)))::int AS count`;
  return row?.count ?? 0;
}

/** How many times of the schedules of these names are to come or not settled, and how much they started has not ended. */
export async function countUnsettled(sql: Sql, names: readonly string[]): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    WITH own AS (SELECT id, next_due_time FROM schedules WHERE name = ANY(${names}))
    SELECT (SELECT count(*) FROM own WHERE next_due_time IS NOT NULL)::int
      + (SELECT count(*) FROM schedule_firings WHERE schedule_id IN (SELECT id FROM own)
         AND state IN (${FiringState.PENDING}, ${FiringState.QUEUED}))::int
      + (SELECT count(*) FROM executions WHERE end_time IS NULL AND labels->>'schedule' = ANY(${names}))::int
      + (SELECT count(*) FROM workflow_runs WHERE end_time IS NULL AND labels->>'schedule' = ANY(${names}))::int AS count`;
  return row?.count ?? 0;
}

/** What the database has of schedules, by their names, with all that says that a schedule has started it. */
export async function readSchedules(sql: Sql, names: readonly string[]): Promise<Map<string, ScheduleRecord>> {
  const schedules = await sql<{ id: string; name: string; createMs: number; updateMs: number }[]>`
    SELECT id, name, ${ms(sql, 'create_time')} AS "createMs", ${ms(sql, 'update_time')} AS "updateMs"
    FROM schedules WHERE name = ANY(${names})`;
  const ids = schedules.map(({ id }) => id);
  const firings = await sql<(Omit<FiringRecord, 'changes'> & { id: string })[]>`
    SELECT schedule_id AS id, ${ms(sql, 'time')} AS "timeMs", ${ms(sql, 'due_time')} AS "dueMs", state,
      ${ms(sql, 'since_time')} AS "sinceMs", coalesce(execution_id, run_id) AS "startedId", message,
      ${ms(sql, 'create_time')} AS "createMs"
    FROM schedule_firings WHERE schedule_id = ANY(${ids}) ORDER BY time`;
  const changes = await sql<(FiringChange & { id: string; timeMs: number })[]>`
    SELECT schedule_id AS id, ${ms(sql, 'time')} AS "timeMs", state, ${ms(sql, 'at')} AS "atMs", open_before AS "openBefore"
    FROM observed_firings WHERE schedule_id = ANY(${ids}) ORDER BY number`;
  const executions = await readExecutions(sql, sql`labels->>'schedule' = ANY(${names})`);
  const things = await sql<(Omit<StartedRecord, 'execution'> & { name: string })[]>`
    SELECT id, coalesce(idempotency_key, '') AS key, state, end_time IS NOT NULL AS final, ${ms(sql, 'end_time')} AS "endMs",
      labels->>'schedule' AS name
    FROM executions WHERE labels->>'schedule' = ANY(${names})
    UNION ALL SELECT id, coalesce(idempotency_key, ''), state, end_time IS NOT NULL, ${ms(sql, 'end_time')}, labels->>'schedule'
    FROM workflow_runs WHERE labels->>'schedule' = ANY(${names})`;
  return new Map(
    schedules.map(({ id, name, ...moments }): [string, ScheduleRecord] => [
      name,
      {
        id,
        ...moments,
        firings: of(firings, id).map((firing) => ({
          ...firing,
          changes: of(changes, id).filter(({ timeMs }) => timeMs === firing.timeMs),
        })),
        started: things
          .filter((thing) => thing.name === name)
          .map((thing) => ({ ...thing, execution: executions.find((one) => one.id === thing.id) })),
      },
    ]),
  );
}

/** A column in milliseconds since 1970. */
function ms(sql: Sql, column: string): ReturnType<Sql> {
  return sql`(extract(epoch FROM ${sql(column)}) * 1000)::float8`;
}

/** What the database has under each key of an execution. */
export async function readRecords(sql: Sql, keys: readonly string[]): Promise<Map<string, ExecutionRecord[]>> {
  const rows = await readExecutions(sql, sql`idempotency_key = ANY(${keys})`);
  return Map.groupBy(rows, ({ key }) => key);
}

/** What the database has under each key of a run, with the executions that say that they are of it. */
export async function readRunRecords(sql: Sql, keys: readonly string[]): Promise<Map<string, RunRecord[]>> {
  const runs = await sql<
    (Pick<RunRecord, 'id' | 'state' | 'final' | 'outputJson' | 'errorMessage'> & { key: string })[]
  >`
    SELECT id, idempotency_key AS key, state, end_time IS NOT NULL AS final, output_json AS "outputJson",
      root->'error'->>'message' AS "errorMessage"
    FROM workflow_runs WHERE idempotency_key = ANY(${keys})`;
  const ids = runs.map(({ id }) => id);
  const endings = await sql<{ id: string; state: number }[]>`
    SELECT run_id AS id, state FROM observed_run_endings WHERE run_id = ANY(${ids}) ORDER BY number`;
  const log = await sql<(LogLine & { id: string })[]>`
    SELECT run_id AS id, sequence::int AS sequence, message FROM workflow_log WHERE run_id = ANY(${ids}) ORDER BY sequence`;
  const executions = await readExecutions(sql, sql`labels->>'workflow-run' = ANY(${ids})`);
  const records = runs.map(({ key, ...run }): [string, RunRecord] => [
    key,
    {
      ...run,
      endings: of(endings, run.id).map(({ state }) => state),
      log: of(log, run.id),
      executions: executions.filter((execution) => execution.runId === run.id).map(nodeExecution),
    },
  ]);
  const byKey = Map.groupBy(records, ([key]) => key);
  return new Map([...byKey].map(([key, found]) => [key, found.map(([, record]) => record)]));
}

/** `workflow/RUN/PATH#TRY`: what is not of that form is of no node. */
function nodeExecution({ key, runId, ...record }: ReadExecution): NodeExecution {
  const [, path = '', tries = '0'] = /^workflow\/[^/]+\/(.*)#(\d+)$/.exec(key) ?? [];
  return { ...record, runId: runId ?? '', path, tries: Number(tries) };
}

type ReadExecution = ExecutionRecord & { key: string; runId: string | null };

async function readExecutions(sql: Sql, condition: ReturnType<Sql>): Promise<ReadExecution[]> {
  const rows = await sql<Omit<ReadExecution, 'attempts' | 'endings' | 'chunks' | 'read'>[]>`
    SELECT id, coalesce(idempotency_key, '') AS key, labels->>'workflow-run' AS "runId", state, end_time IS NOT NULL AS final,
      attempt, error_code AS "errorCode", error_message AS "errorMessage", output_json AS "outputJson"
    FROM executions WHERE ${condition}`;
  const ids = rows.map(({ id }) => id);
  const attempts = await sql<{ id: string; attempt: number; state: number; errorCode: number | null }[]>`
    SELECT execution_id AS id, attempt, state, error_code AS "errorCode" FROM attempts
    WHERE execution_id = ANY(${ids}) ORDER BY attempt`;
  const endings = await sql<{ id: string; attempt: number; state: number }[]>`
    SELECT execution_id AS id, attempt, state FROM observed_endings WHERE execution_id = ANY(${ids}) ORDER BY number`;
  const chunks = await sql<{ id: string; attempt: number; stream: number; offset: number; data: Buffer }[]>`
    SELECT execution_id AS id, attempt, stream, byte_offset AS offset, data FROM log_chunks
    WHERE execution_id = ANY(${ids}) ORDER BY byte_offset`;
  return rows.map((row) => ({
    ...row,
    attempts: of(attempts, row.id),
    endings: of(endings, row.id),
    chunks: of(chunks, row.id).map(({ stream, ...chunk }) => ({
      ...chunk,
      stream: stream === STDOUT ? 'stdout' : 'stderr',
    })),
    read: undefined,
  }));
}

function of<T extends { id: string }>(found: readonly T[], wanted: string): T[] {
  return found.filter(({ id }) => id === wanted);
}
