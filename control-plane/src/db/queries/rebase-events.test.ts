import { randomUUID } from 'node:crypto';
import { beforeEach, expect, test } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { BEFORE_ALL_EVENTS, type EventPosition, readEvents, readerPosition, saveReaderPosition } from './events.ts';
import { rebaseEvents } from './rebase-events.ts';

const { cold: sql } = await startDatabase();
const tenantId = randomUUID();

beforeEach(async () => {
  await sql`DELETE FROM events`;
  await sql`DELETE FROM event_readers`;
});

/** @param xid of the cluster that told it; undefined: this one does. @returns its place */
async function tell(xid?: number): Promise<EventPosition> {
  const of = xid === undefined ? sql`DEFAULT` : sql`${String(xid)}::text::xid8`;
  const [row] = await sql<EventPosition[]>`
    INSERT INTO events (xid, tenant_id, type) VALUES (${of}, ${tenantId}, 'agent.linked') RETURNING xid::text, id`;
  return row ?? expect.unreachable();
}

/** What a reader has yet to read. */
async function unread(reader: string): Promise<number[]> {
  const after = (await readerPosition(sql, reader)) ?? BEFORE_ALL_EVENTS;
  return (await readEvents(sql, after, 100)).map(({ id }) => id);
}

test('nothing is moved in the cluster that has told the events', async () => {
  const { xid, id } = await tell();
  await saveReaderPosition(sql, 'one', { xid, id });
  expect(await rebaseEvents(sql)).toBe(false);
  expect(await readerPosition(sql, 'one')).toEqual({ xid, id });
});

test('what was restored is before all that this cluster tells, and each reader goes on where it was', async () => {
  // Transactions that ran at once: those that began first told last.
  const [b, a, d, c] = [await tell(2e9 + 1), await tell(2e9), await tell(3e9), await tell(2e9 + 2)];
  await saveReaderPosition(sql, 'slow', a);
  await saveReaderPosition(sql, 'as slow', a);
  await saveReaderPosition(sql, 'quick', c);
  await saveReaderPosition(sql, 'done', d);
  expect(await unread('new')).toEqual([]);
  expect(await rebaseEvents(sql)).toBe(true);
  const e = await tell();
  expect(await unread('new')).toEqual([a, b, c, d, e].map(({ id }) => id));
  expect(await unread('slow')).toEqual([b, c, d, e].map(({ id }) => id));
  expect(await unread('as slow')).toEqual([b, c, d, e].map(({ id }) => id));
  expect(await unread('quick')).toEqual([d, e].map(({ id }) => id));
  expect(await unread('done')).toEqual([e.id]);
  expect(await rebaseEvents(sql)).toBe(false);
});

test('what this cluster has told since it was restored, and a reader that is there, stay where they are', async () => {
  const [first, second] = [await tell(2e9), await tell(2e9 + 1)];
  const [third, fourth] = [await tell(), await tell()];
  await saveReaderPosition(sql, 'left behind', first);
  await saveReaderPosition(sql, 'begun here', third);
  expect(await rebaseEvents(sql)).toBe(true);
  expect(await unread('left behind')).toEqual([second.id, third.id, fourth.id]);
  expect(await unread('begun here')).toEqual([fourth.id]);
});

test('a reader of which every event is deleted goes on, and so does what was restored twice', async () => {
  await saveReaderPosition(sql, 'alone', { xid: '2000000000', id: 1 });
  const first = await tell();
  expect(await unread('alone')).toEqual([]);
  expect(await rebaseEvents(sql)).toBe(true);
  expect(await unread('alone')).toEqual([first.id]);
  await sql`UPDATE events SET xid = '2000000000'::xid8`;
  const second = await tell();
  expect(await rebaseEvents(sql)).toBe(true);
  expect(await unread('alone')).toEqual([first.id, second.id]);
});

test('replicas that start together do it once', async () => {
  const restored = await tell(2e9);
  await saveReaderPosition(sql, 'one', { ...restored, id: restored.id - 1 });
  const done = await Promise.all([rebaseEvents(sql), rebaseEvents(sql), rebaseEvents(sql)]);
  expect(done.filter(Boolean)).toHaveLength(1);
  expect(await unread('one')).toEqual([restored.id]);
});
