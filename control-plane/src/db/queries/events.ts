import type { Sql } from '../sql.ts';

// Events are written by the statements that make them happen: in the same transaction, so that what happened is told, and
// what is told happened.

/** What is told. Those of executions have the state after it; `execution.finished` and `execution.requeued` the error too. */
export type EventType =
  /** Accepted; ASSIGNED at once, or PENDING. */
  | 'execution.created'
  | 'execution.assigned'
  | 'execution.preparing'
  | 'execution.started'
  /** An attempt ended and another one follows. */
  | 'execution.requeued'
  | 'execution.finished'
  | 'agent.joined'
  | 'agent.linked'
  | 'agent.unlinked'
  | 'agent.lost'
  | 'agent.drained'
  | 'agent.resumed'
  | 'agent.deleted'
  | 'module.created'
  | 'workflow.created'
  | 'workflow.deleted'
  | 'workflow.started'
  | 'workflow.finished'
  | 'schedule.created'
  | 'schedule.updated'
  | 'schedule.paused'
  | 'schedule.resumed'
  | 'schedule.deleted'
  /** A time of it fired: what it started was accepted. */
  | 'schedule.fired'
  | 'schedule.skipped'
  /** What it would have started was refused for good. */
  | 'schedule.failed'
  | 'module.deleted';

/** Behind which event a reader goes on. */
export interface EventPosition {
  /** Transaction id, as decimal text: it has 64 bits. Of what was restored from another cluster: see rebase-events.ts. */
  xid: string;
  id: number;
}

export const BEFORE_ALL_EVENTS: EventPosition = { xid: '0', id: 0 };

export interface EventRow extends EventPosition {
  tenant_id: string;
  time: Date;
  type: EventType;
  execution_id: string | null;
  attempt: number | null;
  agent_id: string | null;
  state: number | null;
  error_code: number | null;
  data: Record<string, unknown> | null;
}

/** The next events behind a position, in order. Those of a transaction that still runs, and all behind it, come later. */
export async function readEvents(sql: Sql, after: EventPosition, limit: number): Promise<EventRow[]> {
  return await sql<EventRow[]>`
    SELECT xid::text, id, tenant_id, time, type, execution_id, attempt, agent_id, state, error_code, data FROM events
    WHERE (xid, id) > (${after.xid}::text::xid8, ${after.id}) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, id LIMIT ${limit}`;
}

/** Where a reader goes on; undefined when it is new. */
export async function readerPosition(sql: Sql, name: string): Promise<EventPosition | undefined> {
  const [row] = await sql<EventPosition[]>`SELECT xid::text, id FROM event_readers WHERE name = ${name}`;
  return row;
}

/** Whether a reader has read nothing since its events were restored from another cluster: no event has this position. */
export function isRebased({ xid, id }: EventPosition): boolean {
  return xid !== BEFORE_ALL_EVENTS.xid && id === 0;
}

/** Whether this cluster can have given a place to an event; no other one's says anything here. */
export async function isOfThisCluster(sql: Sql, { xid }: EventPosition): Promise<boolean> {
  const [row] = await sql<{ is_known: boolean }[]>`
    SELECT ${xid}::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) AS is_known`;
  return row?.is_known === true;
}

/** Records how far a reader has come: retention may delete what stands before. */
export async function saveReaderPosition(sql: Sql, name: string, { xid, id }: EventPosition): Promise<void> {
  await sql`
    INSERT INTO event_readers (name, xid, id) VALUES (${name}, ${xid}::text::xid8, ${id})
    ON CONFLICT (name) DO UPDATE SET xid = excluded.xid, id = excluded.id, update_time = now()`;
}
