import type { Sql } from '../sql.ts';

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

/** The replica stops: it renews no leases any more. Those that it has renewed end within `leaseMs`. */
export async function removeReplica(sql: Sql, id: string, leaseMs: number): Promise<void> {
  await sql.begin(async (transaction) => {
    await transaction`
      UPDATE agents SET replica_id = NULL, last_seen_time = now(),
        lease_end_time = now() + ${leaseMs}::float8 * interval '1 millisecond'
      WHERE replica_id = ${id}`;
    await transaction`DELETE FROM replicas WHERE id = ${id}`;
  });
}

/**
 * Removes replicas that have not written for `validMs`, and gives the leases of their agents an end: `leaseMs` after the last
 * time they wrote. Agents that are linked to a replica without a row have theirs `leaseMs` from now.
 * @returns the names of those that were removed
 */
export async function removeDeadReplicas(
  sql: Sql,
  { validMs, leaseMs }: { validMs: number; leaseMs: number },
): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    WITH dead AS (
      DELETE FROM replicas WHERE beat_time < now() - ${validMs}::float8 * interval '1 millisecond'
      RETURNING id, name, beat_time
    ), orphans AS (
      UPDATE agents SET replica_id = NULL,
        lease_end_time = coalesce((SELECT beat_time FROM dead WHERE dead.id = agents.replica_id), now())
          + ${leaseMs}::float8 * interval '1 millisecond'
      WHERE replica_id IS NOT NULL
        AND (replica_id IN (SELECT id FROM dead) OR NOT EXISTS (SELECT 1 FROM replicas WHERE id = agents.replica_id))
    )
    SELECT name FROM dead`;
  return rows.map(({ name }) => name);
}
