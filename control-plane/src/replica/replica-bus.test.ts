import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test, vi } from 'vitest';
import { silent, startDatabase } from '../test-support/real-database.ts';
import type { BusMessage } from './bus-message.ts';
import { ReplicaBus } from './replica-bus.ts';

const { control: sql, connect } = await startDatabase();

async function open() {
  const replicaId = randomUUID();
  const heard: { message: BusMessage; from: string }[] = [];
  const onGap = vi.fn();
  const bus = new ReplicaBus({
    connect,
    sql,
    replicaId,
    logger: silent,
    onMessage: (message, from) => heard.push({ message, from }),
    onGap,
  });
  await bus.start();
  onTestFinished(() => bus.stop());
  return { bus, replicaId, heard, onGap };
}

test('messages reach all the others, or the one that is meant, in order and once', async () => {
  const [a, b, c] = [await open(), await open(), await open()];
  a.bus.send('all', { type: 'queued' });
  a.bus.send('all', { type: 'queued' });
  a.bus.send(b.replicaId, { type: 'cancel', id: '1' });
  a.bus.send(b.replicaId, { type: 'cancel', id: '2' });
  a.bus.send(a.replicaId, { type: 'cancel', id: 'own' });
  a.bus.send('all', { type: 'here' });
  const from = a.replicaId;
  await vi.waitFor(() => expect(b.heard).toHaveLength(4));
  await vi.waitFor(() => expect(c.heard).toHaveLength(2));
  expect(c.heard).toEqual([
    { message: { type: 'queued' }, from },
    { message: { type: 'here' }, from },
  ]);
  expect(b.heard.filter(({ message }) => message.type === 'cancel')).toEqual([
    { message: { type: 'cancel', id: '1' }, from },
    { message: { type: 'cancel', id: '2' }, from },
  ]);
  expect(a.heard).toEqual([]);
});

test('more than fits into one notification comes in several', async () => {
  const [a, b] = [await open(), await open()];
  const ids = Array.from({ length: 500 }, () => randomUUID());
  for (const id of ids) a.bus.send(b.replicaId, { type: 'moved', ids: [id, 'ü'.repeat(20)] });
  await vi.waitFor(() => expect(b.heard).toHaveLength(500), { timeout: 10_000 });
  expect(b.heard.map(({ message }) => (message.type === 'moved' ? message.ids[0] : ''))).toEqual(ids);
});

test('a connection that is lost is opened anew, and told as a gap', async () => {
  const [a, b] = [await open(), await open()];
  expect(b.onGap).not.toHaveBeenCalled();
  await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'listen %'`;
  await vi.waitFor(() => expect(b.onGap).toHaveBeenCalledTimes(2), { timeout: 10_000 });
  a.bus.send('all', { type: 'here' });
  a.bus.send(b.replicaId, { type: 'queued' });
  await vi.waitFor(() => expect(b.heard).toHaveLength(2));
});

test('what was sent before the stop is still told', async () => {
  const [a, b] = [await open(), await open()];
  a.bus.send('all', { type: 'here' });
  await a.bus.stop();
  a.bus.send('all', { type: 'queued' });
  await vi.waitFor(() => expect(b.heard.map(({ message }) => message.type)).toEqual(['here']));
});
