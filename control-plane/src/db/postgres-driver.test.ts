import { expect, onTestFinished, test } from 'vitest';
import { startAddress } from '../test-support/database-address.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { connect } from './connection.ts';

const { connect: connectOne, hot, cold, control } = await startDatabase();

/** Everybody's connections are ended, those of the killer excepted. */
async function endAll(): Promise<void> {
  await control`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`;
}

test('a transaction whose connection breaks is over, and none of its statements runs in another one', async () => {
  const sql = connectOne();
  await sql`CREATE TABLE written (who text)`;
  const begun = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const late: unknown[] = [];
  const broken = sql.begin(async (transaction) => {
    await transaction`INSERT INTO written VALUES ('broken, before')`;
    begun.resolve();
    await goOn.promise;
    await transaction`INSERT INTO written VALUES ('broken, after')`.catch((error: unknown) => late.push(error));
  });
  const ended = broken.then(
    () => 'committed',
    (error: { code?: string }) => error.code,
  );
  await begun.promise;
  await endAll();
  expect(['CONNECTION_CLOSED', 'ECONNRESET', '57P01']).toContain(await ended);
  // The pool has one connection: this transaction has the same place as the broken one.
  await sql.begin(async (transaction) => {
    await transaction`INSERT INTO written VALUES ('whole, before')`;
    goOn.resolve();
    await new Promise(setImmediate);
    await transaction`INSERT INTO written VALUES ('whole, after')`;
  });
  expect(late).toHaveLength(1);
  expect((await sql<{ who: string }[]>`SELECT who FROM written ORDER BY who`).map(({ who }) => who)).toEqual([
    'whole, after',
    'whole, before',
  ]);
  await sql.end();
});

test('a pool whose connections are ended again and again under its statements answers every one, and then works', async () => {
  let stopped = false;
  const errors = new Set<string>();
  const one = async (place: number) => {
    const sql = place % 2 === 0 ? hot : cold;
    for (let turn = 0; !stopped; turn++) {
      try {
        if (turn % 3 === 0) {
          await sql.begin(async (transaction) => {
            await transaction`SELECT ${place}::int`;
            await transaction`SELECT pg_sleep(0.001)`;
          });
        } else if (turn % 3 === 1) await sql`SELECT ${'x'.repeat(turn % 5_000)}::text AS long`;
        else await sql`SELECT ${turn}::int AS turn, pg_sleep(0.0005)`;
      } catch (error) {
        errors.add(String((error as { code?: unknown }).code));
      }
    }
  };
  const all = Promise.all(Array.from({ length: 40 }, (_, place) => one(place)));
  for (let kills = 0; kills < 60; kills++) {
    await endAll();
    await new Promise((resolve) => setTimeout(resolve, kills % 20));
  }
  stopped = true;
  await all;
  expect([...errors].filter((code) => !/^(CONNECTION_CLOSED|ECONNRESET|EPIPE|57P0[13])$/.test(code))).toEqual([]);
  expect(errors.size).toBeGreaterThan(0);
  // Each connection of both pools works again.
  for (const [sql, size] of [
    [hot, 4],
    [cold, 6],
  ] as const) {
    const answers = Array.from(
      { length: size * 4 },
      () => sql<{ pid: number }[]>`SELECT pg_backend_pid() AS pid, pg_sleep(0.01)`,
    );
    expect((await Promise.all(answers)).length).toBe(size * 4);
  }
}, 60_000);

function connectTo(places: readonly string[], max: number) {
  const sql = connect(
    { url: `postgres://${hot.options.user}@${places.join(',')}/postgres?target_session_attrs=primary` },
    max,
  );
  onTestFinished(() => sql.end({ timeout: 0 }));
  return sql;
}

test('a pool that knows several servers answers every statement, also the first of a connection that breaks', async () => {
  const addresses = [await startAddress(hot), await startAddress(hot)];
  const sql = connectTo(
    addresses.map(({ place }) => place),
    4,
  );
  let stopped = false;
  let answered = 0;
  const errors = new Set<string>();
  const one = async () => {
    while (!stopped) {
      await sql`SELECT pg_sleep(0.002)`.then(
        () => answered++,
        (error: { code?: string }) => errors.add(String(error.code)),
      );
    }
  };
  const all = Promise.all(Array.from({ length: 16 }, one));
  for (let cuts = 0; cuts < 60; cuts++) {
    await new Promise((resolve) => setTimeout(resolve, cuts % 30));
    for (const { cut } of addresses) cut();
  }
  stopped = true;
  await all;
  expect([...errors].filter((code) => !/^(CONNECTION_CLOSED|ECONNRESET|EPIPE)$/.test(code))).toEqual([]);
  expect(answered).toBeGreaterThan(0);
  expect(await sql`SELECT 1 AS one`).toEqual([{ one: 1 }]);
}, 60_000);

test('a pool that finds none of several servers says so, and leaves them alone for a while', async () => {
  const addresses = [await startAddress(hot), await startAddress(hot)];
  const sql = connectTo(
    addresses.map(({ place }) => place),
    1,
  );
  for (const { state } of addresses) state.refuses = true;
  for (let turn = 0; turn < 5; turn++) await expect(sql`SELECT 1`).rejects.toMatchObject({ code: /CLOSED|RESET/ });
  expect(addresses.map(({ state }) => state.dials)).toEqual([5, 5]);
  // One of them is enough.
  for (const { state } of addresses.slice(1)) state.refuses = false;
  expect(await sql`SELECT 1 AS one`).toEqual([{ one: 1 }]);
});
