import type { AnySql, Sql } from '../sql.ts';

/**
 * Writes that a replica lives.
 * @returns whether its row had to be made (anew): it is new, or the others took it for dead; and whether others live too.
 */
export async function beatReplica(
  sql: Sql,
  replica: { id: string; name: string; validMs: number },
): Promise<{ made: boolean; others: number }> {
  const [row] = await sql<{ made: boolean; others: number }[]>`
    WITH beat AS (
      INSERT INTO replicas (id, name) VALUES (${replica.id}, ${replica.name})
      ON CONFLICT (id) DO UPDATE SET beat_time = now() RETURNING xmax = 0 AS made
    )
    SELECT made, (SELECT count(*)::int FROM replicas WHERE id <> ${replica.id}
      AND beat_time > now() - ${replica.validMs}::float8 * interval '1 millisecond') AS others
    FROM beat`;
  if (row === undefined) throw new Error('the row of this replica was not written');
  return row;
}

/** The end of a statement that has `unlinked` agents. */
export function tellUnlinked(sql: AnySql) {
  return sql`INSERT INTO events (tenant_id, type, agent_id, data)
    SELECT tenant_id, 'agent.unlinked', id, jsonb_build_object('name', name) FROM unlinked`;
}

/** The replica stops: it renews no leases any more. Those that it has renewed end within `leaseMs`. */
export async function removeReplica(sql: Sql, id: string, leaseMs: number): Promise<void> {
  await sql.begin(async (transaction) => {
    await transaction`
      WITH unlinked AS (
        UPDATE agents SET replica_id = NULL, last_seen_time = now(),
          lease_end_time = now() + ${leaseMs}::float8 * interval '1 millisecond'
        WHERE replica_id = ${id}
        RETURNING tenant_id, id, name
      )
      ${tellUnlinked(transaction)}`;
    await transaction`DELETE FROM replicas WHERE id = ${id}`;
  });
}

/** A replica, and when it last wrote that it lives. */
export interface ReplicaBeat {
  id: string;
  name: string;
  /** Only to be compared. */
  beat: string;
}

/** Whether the replica that an agent is linked to, as far as the database knows, has no row any more. */
export const isReplicaGone = (sql: Sql) =>
  sql`NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = agents.replica_id)`;

/**
 * Removes replicas that have not written since they were seen, and gives the leases of their agents an end: `leftMs` from now.
 * Agents that are linked to a replica without a row have theirs `orphanedMs` from now.
 * @returns the ids of those that were removed
 */
export async function removeDeadReplicas(
  sql: Sql,
  dead: readonly (ReplicaBeat & { leftMs: number })[],
  orphanedMs: number,
): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(dead)}::text::json) AS input(id uuid, beat text, "leftMs" float8)
    ), removed AS (
      DELETE FROM replicas USING input WHERE replicas.id = input.id AND replicas.beat_time::text = input.beat
      RETURNING replicas.id, input."leftMs" AS left_ms
    ), unlinked AS (
      UPDATE agents SET replica_id = NULL,
        lease_end_time = now() + interval '1 millisecond'
          * coalesce((SELECT left_ms FROM removed WHERE removed.id = agents.replica_id), ${orphanedMs}::float8)
      WHERE replica_id IS NOT NULL
        AND (replica_id IN (SELECT id FROM removed) OR ${isReplicaGone(sql)})
      RETURNING tenant_id, agents.id, name
    ), told AS (
      ${tellUnlinked(sql)}
    )
    SELECT id FROM removed`;
  return rows.map(({ id }) => id);
}
