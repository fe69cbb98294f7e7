import { setTimeout as pause } from 'node:timers/promises';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ReplicaRegistration } from '../replica/replica-registration.ts';
import { ScheduleRunner } from '../schedule/schedule-runner.ts';
import { LeaseSweep } from '../service/lease-sweep.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { WorkflowRunner } from '../workflow/workflow-runner.ts';
import { GroupCommit } from './group-commit.ts';
import { OutageLog } from './outage-log.ts';
import type { Sql } from './sql.ts';

const SECOND_MS = 1_000;
const MINUTE_MS = 60_000;
const REPLICA = '0192f0c1-2c4d-7000-8000-000000000001';
const { control } = await startDatabase();
let lines: { level: number; msg: string; reason?: string; times?: number }[];
const logger = pino({ base: null }, { write: (line: string) => lines.push(JSON.parse(line)) });
/** Why the database takes nothing; undefined: it takes everything. */
let refusal: Error | undefined;
/** Statements and transactions that were refused. */
let refused: number;

beforeEach(() => {
  lines = [];
  refusal = undefined;
  refused = 0;
});
afterEach(() => {
  vi.useRealTimers();
});

const readOnly = () => Object.assign(new Error('cannot execute UPDATE in a read-only transaction'), { code: '25006' });

/** The database, which refuses what it is asked when it is to. */
const sql = new Proxy(control, {
  apply: (target, self, given) => (refusal === undefined ? Reflect.apply(target, self, given) : refuse()),
  get: (target, name) => (name === 'begin' && refusal !== undefined ? refuse : Reflect.get(target, name)),
}) as Sql;

/** When it is awaited, as with the driver: a part of a statement is not asked for by itself. */
function refuse(): PromiseLike<never> {
  const reason = refusal;
  return {
    // biome-ignore lint/suspicious/noThenProperty: what the driver answers is such an object
    then: (_resolve, reject) => {
      refused++;
      return Promise.reject(reason).then(undefined, reject) as Promise<never>;
    },
  };
}

test('a cause is logged when it comes up and then every 30 s with its count, and rounds without failures say that it is over', () => {
  vi.useFakeTimers();
  const log = new OutageLog(logger, 'it is done again');
  const round = (failures: number) => {
    for (let n = 0; n < failures; n++) log.failed('warn', 'it could not be done', readOnly(), { n });
    log.endRound();
  };
  for (let second = 0; second < 61; second++) {
    round(10);
    vi.advanceTimersByTime(SECOND_MS);
  }
  const line = { level: 40, msg: 'it could not be done', reason: readOnly().message, n: 0 };
  expect(lines.splice(0)).toEqual([
    expect.objectContaining(line),
    expect.objectContaining({ ...line, times: 300 }),
    expect.objectContaining({ ...line, times: 300 }),
  ]);
  log.failed('error', 'something else could not be done', readOnly());
  expect(lines.splice(0)).toMatchObject([{ level: 50, msg: 'something else could not be done' }]);
  for (let second = 0; second < 20; second++) {
    round(0);
    vi.advanceTimersByTime(SECOND_MS);
  }
  expect(lines).toEqual([]);
  round(0);
  round(0);
  expect(lines.splice(0)).toMatchObject([{ level: 30, msg: 'it is done again' }]);
  // What comes and goes is told as seldom as what stays, and is not over.
  for (let second = 0; second < 61; second++) {
    round(second % 15 === 0 ? 1 : 0);
    vi.advanceTimersByTime(SECOND_MS);
  }
  expect(lines.map(({ level }) => level)).toEqual([40, 40]);
});

const never = () => expect.unreachable('there is nothing to be done');
const loops = {
  'the beat of a replica': {
    create: () => {
      const options = { sql, id: REPLICA, name: 'this', leaseMs: 30_000, logger, onRevived: () => undefined };
      const replica = new ReplicaRegistration(options);
      const start = async () => {
        // A replica whose first beat is refused does not start.
        refusal = undefined;
        await replica.start();
        refusal = readOnly();
      };
      return { start, stop: () => replica.stop() };
    },
    everyMs: 2_000,
    failed: 'the database was not told that this replica lives; trying again',
    over: 'the database hears of this replica again',
  },
  'the sweep of leases': {
    create: () =>
      new LeaseSweep({
        ...{ sql, leaseMs: 30_000, brakeMs: 300_000, graceMs: 0, logger },
        endAttempts: never,
        onReplicaGone: () => undefined,
      }),
    everyMs: 1_000,
    failed: 'leases could not be looked at; trying again',
    over: 'leases are looked at again',
  },
  'the look at workflows': {
    create: () =>
      new WorkflowRunner({
        ...{ sql, replicaId: REPLICA, logger },
        steps: new GroupCommit({ write: never, concurrency: 1, maxItems: 1 }),
        executions: { run: never, cancel: never },
        readOutput: never,
        workflowsOf: never,
        checkInput: never,
        whileAway: (work) => work(),
        onChanged: never,
        onEnded: never,
      }),
    everyMs: 1_000,
    failed: 'workflows could not be looked for; trying again',
    over: 'workflows go on again',
  },
  'the look at schedules': {
    create: () =>
      new ScheduleRunner({
        ...{ sql, logger },
        targets: { start: never, cancel: never, isFinalRefusal: never },
        onFiring: never,
      }),
    everyMs: 1_000,
    failed: 'schedules could not be looked at; trying again',
    over: 'schedules are looked at again',
  },
};

test.each(Object.entries(loops))(
  '%s goes on at its pace while the database refuses it, and tells so now and then',
  async (_name, loop) => {
    // All connections, by the time of the day: the driver opens them with timers.
    await Promise.all(Array.from({ length: control.options.max }, () => control`SELECT pg_sleep(0.01)`));
    // All but those by which the driver hears of its sockets.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] });
    const running = loop.create();
    refusal = readOnly();
    await running.start();
    await vi.advanceTimersByTimeAsync(5 * MINUTE_MS);
    // Between looks at schedules there is a rest.
    const rounds = (5 * MINUTE_MS) / loop.everyMs;
    expect(refused).toBeGreaterThan(0.85 * rounds);
    const told = lines.splice(0);
    expect(told.length).toBeGreaterThan(5);
    expect(told.length).toBeLessThanOrEqual(11);
    for (const line of told) {
      expect(line).toMatchObject({
        level: 40,
        msg: loop.failed,
        reason: 'cannot execute UPDATE in a read-only transaction',
      });
    }
    refusal = undefined;
    // The database answers by the time of the day, the loop goes by this one.
    for (let ms = 0; ms < 60 * MINUTE_MS && lines.length === 0; ms += 100) {
      await vi.advanceTimersByTimeAsync(100);
      await pause(2);
    }
    expect(lines).toMatchObject([{ level: 30, msg: loop.over }]);
    await running.stop();
    // Nothing of it is refused or failed any more.
    expect(lines).toHaveLength(1);
  },
);
