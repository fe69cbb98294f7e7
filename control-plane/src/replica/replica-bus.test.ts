import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { connect } from '../db/connection.ts';
import { startAddress } from '../test-support/database-address.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import type { BusMessage } from './bus-message.ts';
import { ReplicaBus } from './replica-bus.ts';

const { control: sql, connect: connectOne } = await startDatabase();

async function open(connect = connectOne) {
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

type Opened = Awaited<ReturnType<typeof open>>;

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
  await vi.waitFor(() => expect(b.heard).toHaveLength(500));
  expect(b.heard.map(({ message }) => (message.type === 'moved' ? message.ids[0] : ''))).toEqual(ids);
});

test('a connection that is lost is opened anew, and told as a gap', async () => {
  const [a, b] = [await open(), await open()];
  expect(b.onGap).not.toHaveBeenCalled();
  await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'listen %'`;
  await vi.waitFor(() => expect(b.onGap).toHaveBeenCalled());
  await untilHeard(a, b);
});

/** Until messages on either channel come. */
async function untilHeard(from: Opened, to: Opened): Promise<void> {
  await vi.waitFor(() => {
    from.bus.send('all', { type: 'here' });
    from.bus.send(to.replicaId, { type: 'queued' });
    expect(new Set(to.heard.map(({ message }) => message.type))).toEqual(new Set(['here', 'queued']));
  }, 10_000);
}

test('however often a connection could not be opened, its gap is told once or twice', async () => {
  const { place, state, cut } = await startAddress(sql);
  const url = `postgres://${sql.options.user}@${place}/postgres`;
  const [a, b] = [await open(), await open(() => connect({ url }, 1))];
  state.refuses = true;
  cut();
  const dials = state.dials;
  await vi.waitFor(() => expect(state.dials).toBeGreaterThan(dials + 8), 30_000);
  expect(b.onGap).not.toHaveBeenCalled();
  state.refuses = false;
  await untilHeard(a, b);
  await vi.waitFor(() => expect(b.onGap).toHaveBeenCalled());
  // Had each of the refused connections asked for it, it would be told again and again.
  await setTimeout(500);
  // Once for each channel at most.
  expect(b.onGap.mock.calls.length).toBeLessThanOrEqual(2);
});

test('what was sent before the stop is still told', async () => {
  const [a, b] = [await open(), await open()];
  a.bus.send('all', { type: 'here' });
  await a.bus.stop();
  a.bus.send('all', { type: 'queued' });
  await vi.waitFor(() => expect(b.heard.map(({ message }) => message.type)).toEqual(['here']));
});
