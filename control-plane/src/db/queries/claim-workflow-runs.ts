import type { Sql } from '../sql.ts';

/** A run that this replica advances from now on. */
export interface ClaimedRun {
  id: string;
  tenant_id: string;
}

/** What a replica has to do about runs. */
export interface Look {
  /** Taken by this look. */
  claimed: ClaimedRun[];
  /** Of this replica that go on, without those that are known. */
  own: ClaimedRun[];
  /** Of this replica for which there is a word. */
  heard: ClaimedRun[];
  /** There may be more to take at once. */
  more: boolean;
  /** Milliseconds until the next time of a run that no replica has; undefined: none has one. */
  nextInMs: number | undefined;
  /** The time of the database, in milliseconds since 1970. */
  databaseMs: number;
}

/**
 * Takes runs whose time has come, for which somebody has a word, or whose replica is gone; and finds those of this replica.
 * @param known runs that this replica has in memory
 * @param limit of each kind that are taken
 */
export async function lookForWorkflowRuns(
  sql: Sql,
  { replicaId, known, limit }: { replicaId: string; known: readonly string[]; limit: number },
): Promise<Look> {
  type Row = ClaimedRun & { why: 'claimed' | 'own' | 'heard' | 'next'; in_ms: number | null; now_ms: number | null };
  const rows = await sql<Row[]>`
    WITH word AS MATERIALIZED (
      SELECT DISTINCT tenant_id, run_id FROM workflow_inbox
    ), asleep AS (
      SELECT tenant_id, id FROM workflow_runs
      WHERE replica_id IS NULL AND end_time IS NULL AND wake_time <= now()
      ORDER BY wake_time LIMIT ${limit} FOR UPDATE SKIP LOCKED
    ), orphaned AS (
      SELECT tenant_id, id FROM workflow_runs AS run
      WHERE replica_id IS NOT NULL AND end_time IS NULL
        AND NOT EXISTS (SELECT FROM replicas WHERE replicas.id = run.replica_id)
      LIMIT ${limit} FOR UPDATE SKIP LOCKED
    ), heard AS (
      SELECT run.tenant_id, run.id FROM word JOIN workflow_runs AS run
        ON run.tenant_id = word.tenant_id AND run.id = word.run_id
      WHERE run.replica_id IS NULL OR NOT EXISTS (SELECT FROM replicas WHERE replicas.id = run.replica_id)
      LIMIT ${limit} FOR UPDATE OF run SKIP LOCKED
    ), due AS (SELECT * FROM asleep UNION SELECT * FROM orphaned UNION SELECT * FROM heard
    ), claimed AS (
      UPDATE workflow_runs AS run SET replica_id = ${replicaId}, wake_time = NULL
      FROM due WHERE run.tenant_id = due.tenant_id AND run.id = due.id
      RETURNING run.tenant_id, run.id
    )
    SELECT 'claimed' AS why, tenant_id, id, NULL::float8 AS in_ms, NULL::float8 AS now_ms FROM claimed
    UNION ALL
    SELECT 'own', tenant_id, id, NULL, NULL FROM workflow_runs
    WHERE replica_id = ${replicaId} AND end_time IS NULL AND id <> ALL(${known as string[]}::uuid[])
    UNION ALL
    SELECT 'heard', run.tenant_id, run.id, NULL, NULL FROM word JOIN workflow_runs AS run
      ON run.tenant_id = word.tenant_id AND run.id = word.run_id
    WHERE run.replica_id = ${replicaId}
    UNION ALL
    SELECT 'next', NULL, NULL, extract(epoch FROM min(wake_time) - now())::float8 * 1000,
      extract(epoch FROM clock_timestamp())::float8 * 1000 FROM workflow_runs
    WHERE replica_id IS NULL AND end_time IS NULL AND wake_time > now()`;
  const of = (kind: Row['why']) => rows.flatMap(({ why, id, tenant_id }) => (why === kind ? [{ id, tenant_id }] : []));
  const claimed = of('claimed');
  const next = rows.find(({ why }) => why === 'next');
  const times = { nextInMs: next?.in_ms ?? undefined, databaseMs: next?.now_ms ?? Number.NaN };
  return { claimed, own: of('own'), heard: of('heard'), more: claimed.length >= limit, ...times };
}

/**
 * Takes a run that no replica has in memory, ended or not.
 * @returns the replica that has it now; undefined: there is no such run
 */
export async function claimWorkflowRun(
  sql: Sql,
  run: { tenantId: string; id: string; replicaId: string },
): Promise<string | undefined> {
  const [row] = await sql<{ replica_id: string }[]>`
    UPDATE workflow_runs SET replica_id = coalesce(replica_id, ${run.replicaId}), wake_time = NULL
    WHERE tenant_id = ${run.tenantId} AND id = ${run.id} RETURNING replica_id`;
  return row?.replica_id;
}

/**
 * Nothing is to be done for it until then: it leaves the memory of its replica.
 * @returns whether somebody has said something meanwhile, for which it is to be taken again at once
 */
export async function parkWorkflowRun(
  sql: Sql,
  run: { tenantId: string; id: string; replicaId: string; wakeTime: Date | undefined },
): Promise<boolean> {
  const [row] = await sql<{ heard: boolean }[]>`
    WITH word AS (
      SELECT EXISTS (SELECT FROM workflow_inbox WHERE tenant_id = ${run.tenantId} AND run_id = ${run.id}) AS heard
    )
    UPDATE workflow_runs SET replica_id = NULL,
      wake_time = CASE WHEN word.heard THEN now() ELSE ${run.wakeTime ?? null}::timestamptz END
    FROM word
    WHERE tenant_id = ${run.tenantId} AND id = ${run.id} AND replica_id = ${run.replicaId} RETURNING word.heard`;
  return row?.heard ?? false;
}
