import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { CreateExecutionRequestSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { AgentMessageSchema, HelloSchema, type ServerMessage } from '@harrier/shared/gen/link';
import { BUILT_IN_CLASSES } from '@harrier/shared/task-classes-file';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { AgentRegistry, LinkedAgent } from '../agent-link/agent-registry.ts';
import { GroupCommit } from '../db/group-commit.ts';
import { type FinishedExecution, type FinishTimes, finishExecutions } from '../db/queries/finish-executions.ts';
import type { NewLogChunk } from '../db/queries/log-chunks.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../test-support/stored-executions.ts';
import { AttemptEndings } from './attempt-endings.ts';
import { AttemptLog } from './attempt-log.ts';
import { type AttemptOutcome, outcomeWithoutResult } from './attempt-outcome.ts';
import { ExecutionTracker } from './execution-tracker.ts';
import { MovedExecutions } from './moved-executions.ts';
import { type ResolvedExecution, resolveExecution } from './resolved-execution.ts';
import { StoreRetries } from './store-retries.ts';
import { TrackedExecution } from './tracked-execution.ts';

const MINUTE_MS = 60_000;
const { control: sql } = await startDatabase();
const tenantId = randomUUID();
const agentId = randomUUID();
await sql`INSERT INTO tenants (id, name) VALUES (${tenantId}, 'tenant')`;

type Line = { level: number; msg: string; executionId?: string } & Record<string, unknown>;
let lines: Line[];
const logger = pino({ base: null }, { write: (line: string) => lines.push(JSON.parse(line)) });
/** Executions whose ends were given to the group that ends share, in turn. */
let grouped: string[];
/** Executions of which an agent was told that their end is stored. */
let acknowledged: string[];
let retries: StoreRetries;
let endings: AttemptEndings;
/** What reads of rows wait for, and those that have begun. */
let readable: Promise<void>;
let readings: string[];
let tracker: ExecutionTracker;
/** What happens before it is read whether a caller wants an execution to stop. */
let onCancelRead: () => Promise<unknown>;
const watchedSql = new Proxy(sql, {
  apply: (_target, _this, query: Parameters<typeof sql>) => {
    if (!String(query[0]).includes('SELECT cancel_reason')) return sql(...query);
    return onCancelRead().then(() => sql(...query));
  },
});

beforeEach(async () => {
  // All connections are opened by the time of the day: the driver waits for them with timers.
  await Promise.all(Array.from({ length: 20 }, () => sql`SELECT pg_sleep(0.05)`));
  // All but those by which the driver hears of its sockets.
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  readable = Promise.resolve();
  readings = [];
  onCancelRead = () => Promise.resolve();
  lines = [];
  grouped = [];
  acknowledged = [];
  retries = new StoreRetries(logger);
  const registry = {
    sendLater: (_agentId: string, { message }: ServerMessage) => {
      if (message.case === 'resultStored') acknowledged.push(message.value.ref?.executionId ?? '');
    },
    holdSlot: () => undefined,
    forgetHeldSlots: () => undefined,
    get: () => undefined,
  };
  const options = {
    ...{ sql: watchedSql, logger, replicaId: randomUUID() },
    registry: registry as unknown as AgentRegistry,
    finishes: new GroupCommit<FinishedExecution, FinishTimes | undefined>({
      write: async (rows) => {
        grouped.push(...rows.map(({ id }) => id));
        return await finishExecutions(sql, rows);
      },
      concurrency: 1,
      maxItems: 1,
    }),
    release: () => undefined,
    queued: () => undefined,
    onRetry: () => undefined,
    onFinished: () => undefined,
  };
  endings = new AttemptEndings({ ...options, retries, forget: () => undefined });
  tracker = new ExecutionTracker({
    ...options,
    logs: new GroupCommit<NewLogChunk, void>({ write: async () => [], concurrency: 1, maxItems: 1 }),
    resolveRow: async ({ id }) => {
      readings.push(id);
      await readable;
      return resolvedOf(id);
    },
    decideLock: async (_resolved, lock) => lock,
    whyNobody: () => undefined,
    onTracked: () => undefined,
    onTaken: () => undefined,
  });
});
afterEach(async () => {
  retries.stop();
  tracker.stop();
  vi.useRealTimers();
  await sql`ALTER TABLE executions DROP CONSTRAINT IF EXISTS refused`;
  await sql`ALTER TABLE attempts DROP CONSTRAINT IF EXISTS refused`;
  await sql`DROP FUNCTION IF EXISTS refuse CASCADE`;
  await sql`DROP SEQUENCE IF EXISTS tries`;
  vi.restoreAllMocks();
});

function resolvedOf(id: string): ResolvedExecution {
  const target = { case: 'code', value: { source: 'def handler(input): ...' } } as const;
  return resolveExecution({
    ...{ id, tenantId, module: undefined, classes: BUILT_IN_CLASSES, inputJson: '{}', jsonText: false },
    request: create(CreateExecutionRequestSchema, { target }),
  });
}

/** An execution whose first attempt runs. */
async function running(agent = agentId): Promise<TrackedExecution> {
  const id = await insertExecution(sql, { tenant_id: tenantId, state: State.RUNNING, attempt: 1, agent_id: agent });
  const now = new Date();
  const times = { createTime: now, queueTime: now, assignTime: now, startTime: now, endTime: undefined };
  const tracked = new TrackedExecution(resolvedOf(id), times, 0);
  tracked.history.push({ state: State.RUNNING, attempt: 1, agentId: agent });
  return tracked;
}

const succeeded: AttemptOutcome = {
  ...outcomeWithoutResult(Code.INTERNAL, '', { stdout: 0, stderr: 0 }),
  state: State.SUCCEEDED,
  outputJson: '{"n":1}',
  error: undefined,
};

async function stored({ id }: TrackedExecution) {
  const [row] = await sql`
    SELECT state, output_json, error_code, error_message, end_time FROM executions WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row;
}

test('an end that is refused in every form holds up no other, says so, and is stored as it was once it is taken', async () => {
  const refused = await running();
  const other = await running();
  await sql.unsafe(`ALTER TABLE executions ADD CONSTRAINT refused CHECK (end_time IS NULL OR id <> '${refused.id}')`);
  // Whoever has others to end does not wait for it.
  await endings.end(refused, succeeded);
  await endings.end(other, succeeded);
  expect(await stored(other)).toMatchObject({ state: State.SUCCEEDED });
  await vi.waitFor(() => expect(refused.endRefused).toContain('violates check constraint "refused"'));
  expect(await stored(refused)).toMatchObject({ end_time: null });
  expect(acknowledged).toEqual([other.id]);
  const about = { executionId: refused.id, attempt: 1, agentId };
  expect(lines).toEqual([
    expect.objectContaining({ level: 50, ...about, sqlState: '23514', table: 'executions', constraint: 'refused' }),
  ]);
  expect(lines[0]?.msg).toContain('remove the constraint');

  await sql`ALTER TABLE executions DROP CONSTRAINT refused`;
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  await vi.waitFor(() => expect(acknowledged).toEqual([other.id, refused.id]));
  expect(await stored(refused)).toMatchObject({ state: State.SUCCEEDED, output_json: '{"n":1}', error_code: null });
  expect(refused).toMatchObject({ endRefused: undefined, finished: true });
  expect(lines.slice(1)).toMatchObject([{ level: 30, ...about }]);
});

/** From now on every end is refused, and each try is counted: as it is, and without its result. */
async function refuseEnds(): Promise<void> {
  await sql`CREATE SEQUENCE tries`;
  const check = `CHECK (end_time IS NULL OR nextval('tries') < 0) NOT VALID`;
  await sql.unsafe(`ALTER TABLE executions ADD CONSTRAINT refused ${check}`);
}

async function tries(): Promise<number> {
  const [row] = await sql<{ n: string }[]>`SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS n FROM tries`;
  return Number(row?.n);
}

test('one that stays refused is tried every few minutes, and logged once an hour', async () => {
  const refused = await running();
  await refuseEnds();
  // The longest pauses that may be.
  vi.spyOn(Math, 'random').mockReturnValue(1);
  await endings.end(refused, succeeded);
  await vi.waitFor(() => expect(refused.endRefused).toBeDefined());
  expect(await tries()).toBe(2);
  const pausesMinutes = [1, 2, 4, 5, 5];
  for (const [i, minutes] of pausesMinutes.entries()) {
    const told = refused.changed.wait(new AbortController().signal);
    await vi.advanceTimersByTimeAsync(minutes * MINUTE_MS);
    await told;
    expect(await tries()).toBe(2 * (i + 2));
  }
  expect(lines.map(({ executionId }) => executionId)).toEqual([refused.id]);
  retries.stop();
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS);
  expect(await tries()).toBe(2 * (1 + pausesMinutes.length));
});

test('of many that are refused for one cause one is tried at a time, apart from the others, until one is taken', async () => {
  const refused = await Promise.all(Array.from({ length: 20 }, () => running()));
  await refuseEnds();
  // All are due at once.
  vi.spyOn(Math, 'random').mockReturnValue(1);
  const allTold = refused.map(({ changed }) => changed.wait(new AbortController().signal));
  await Promise.all(refused.map((tracked) => endings.end(tracked, succeeded)));
  await Promise.all(allTold);
  expect(await tries()).toBe(2 * 20);
  const told = refused[0]?.changed.wait(new AbortController().signal);
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  await told;
  expect(await tries()).toBe(2 * 21);
  await sql`ALTER TABLE executions DROP CONSTRAINT refused`;
  await vi.advanceTimersByTimeAsync(2 * MINUTE_MS);
  // The database answers by the time of the day, and meanwhile none of the others becomes due.
  const deadlineMs = Date.now() + MINUTE_MS;
  while (acknowledged.length === 0 && Date.now() < deadlineMs) await pause(2);
  expect(acknowledged).toHaveLength(1);
  while (acknowledged.length < refused.length && Date.now() < deadlineMs) {
    await vi.advanceTimersByTimeAsync(1_000);
    await pause(2);
  }
  expect(acknowledged).toHaveLength(refused.length);
  expect(refused.every(({ finished }) => finished)).toBe(true);
  // Each was in the group once.
  expect(grouped).toEqual(refused.map(({ id }) => id));
});

test('what says that a result was refused waits for a database that is away', async () => {
  const tracked = await running();
  await sql`CREATE SEQUENCE tries`;
  await sql`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.error_code IS NULL THEN RAISE 'it cannot be held' USING ERRCODE = '22P05'; END IF;
    IF nextval('tries') = 1 THEN RAISE 'it shuts down' USING ERRCODE = '57P01'; END IF;
    RETURN NEW;
  END $$`;
  await sql`CREATE TRIGGER refuse BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION refuse()`;
  await endings.end(tracked, succeeded);
  await vi.waitFor(() => expect(acknowledged).toEqual([tracked.id]));
  expect(lines[0]).toMatchObject({ level: 50, reason: 'it shuts down' });
  expect(await stored(tracked)).toMatchObject({
    state: State.FAILED,
    error_code: Code.INTERNAL,
    error_message: 'the result could not be stored: it cannot be held',
  });
});

test('an execution ends whose next attempt is refused', async () => {
  const tracked = await running();
  await sql`ALTER TABLE attempts ADD CONSTRAINT refused CHECK (attempt <> 1)`;
  await endings.lose(tracked, 'its agent is gone');
  await vi.waitFor(() => expect(tracked.finished).toBe(true));
  expect(await stored(tracked)).toMatchObject({
    state: State.FAILED,
    error_code: Code.AGENT_LOST,
    error_message: expect.stringMatching(/^its agent is gone; another attempt could not be stored: .*"refused"/),
  });
});

test('nobody waits for an end that the database refuses by chance, and that is stored when it does not', async () => {
  const refused = await running();
  await sql`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$`;
  await sql`CREATE TRIGGER refuse BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION refuse()`;
  await endings.end(refused, succeeded);
  expect(await stored(refused)).toMatchObject({ end_time: null });
  await sql`DROP FUNCTION refuse CASCADE`;
  await vi.advanceTimersByTimeAsync(5_000);
  await vi.waitFor(() => expect(acknowledged).toEqual([refused.id]));
  expect(await stored(refused)).toMatchObject({ state: State.SUCCEEDED });
});

/** An agent as the tracker is told of it. */
function linked(id: string): LinkedAgent {
  return { id, name: id } as LinkedAgent;
}

async function link(id: string, executionId: string, attempt: number): Promise<void> {
  const hello = create(HelloSchema, { held: [{ ref: { executionId, attempt } }] });
  await tracker.reconcile(linked(id), hello, false);
}

function tellResult(agent: string, executionId: string, attempt: number): void {
  const outputJson = Buffer.from(JSON.stringify({ of: attempt }));
  const value = { ref: { executionId, attempt }, state: State.SUCCEEDED, outputJson };
  tracker.handle(linked(agent), create(AgentMessageSchema, { message: { case: 'result', value } }).message);
}

/** An execution whose first attempt has an end that is refused here. */
async function refusedHere(): Promise<TrackedExecution> {
  const agent = randomUUID();
  const { id } = await running(agent);
  await link(agent, id, 1);
  await sql`ALTER TABLE executions ADD CONSTRAINT refused CHECK (end_time IS NULL) NOT VALID`;
  tellResult(agent, id, 1);
  const first = tracker.get(id) ?? expect.unreachable('it is followed');
  await vi.waitFor(() => expect(first.endRefused).toBeDefined());
  return first;
}

/** The same, while another replica has given it to `next` anew. */
async function givenOn(next: string): Promise<TrackedExecution> {
  const first = await refusedHere();
  await sql`UPDATE executions SET attempt = 2, agent_id = ${next} WHERE id = ${first.id}`;
  return first;
}

/** Looks for what others have moved, with the agents that are linked here. */
async function lookForMoved(...here: string[]): Promise<void> {
  const registry = { get: (id: string) => (here.includes(id) ? linked(id) : undefined) } as AgentRegistry;
  const moved = new MovedExecutions({ sql, replicaId: randomUUID(), registry, tracker, logger });
  moved.look();
  await moved.stop();
  expect(lines.filter(({ level }) => level === 40)).toEqual([]);
}

test('a refused end is not that of the next attempt, which is followed beside it', async () => {
  const next = randomUUID();
  const first = await givenOn(next);
  const { id } = first;
  await link(next, id, 2);
  expect(tracker.get(id)).toMatchObject({ ending: false, current: { attempt: 2, agentId: next } });
  expect(first.current).toMatchObject({ attempt: 1 });
  await sql`ALTER TABLE executions DROP CONSTRAINT refused`;
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  // The first agent need not keep its result.
  await vi.waitFor(() => expect(acknowledged).toEqual([id]));
  expect(await stored(first)).toMatchObject({ end_time: null });
  expect(tracker.get(id)).toMatchObject({ ending: false, current: { attempt: 2, agentId: next } });
  tellResult(next, id, 2);
  await vi.waitFor(() => expect(acknowledged).toEqual([id, id]));
  expect(await stored(first)).toMatchObject({ state: State.SUCCEEDED, output_json: '{"of":2}' });
});

test('a refused end whose execution has another attempt elsewhere is dropped, though ends are still refused', async () => {
  const first = await givenOn(randomUUID());
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  await vi.waitFor(() => expect(tracker.get(first.id)).toBeUndefined());
  expect(first.endRefused).toBeUndefined();
  expect(await stored(first)).toMatchObject({ end_time: null });
  expect(lines.map(({ level }) => level)).toEqual([50]);
});

test.each([
  ['elsewhere', false],
  ['here again', true],
])(
  'that another replica has stored a refused end is heard of at the next look, with its agent linked %s',
  async (_where, isHere) => {
    const first = await refusedHere();
    const { id, current } = first;
    await sql`ALTER TABLE executions DROP CONSTRAINT refused`;
    const theirs = { id, tenant_id: tenantId, agent_id: current.agentId, output_json: '"theirs"' };
    await finishExecutions(sql, [finishedRow(theirs)]);
    const told = first.changed.wait(new AbortController().signal);
    await lookForMoved(...(isHere ? [current.agentId] : []));
    // Whoever waits for it looks in the database.
    expect(tracker.get(id)).toBeUndefined();
    await told;
    await vi.advanceTimersByTimeAsync(MINUTE_MS);
    await vi.waitFor(() => expect(acknowledged).toEqual([id]));
    expect(await stored(first)).toMatchObject({ state: State.SUCCEEDED, output_json: '"theirs"' });
  },
);

test.each([
  ['runs elsewhere', 2, randomUUID()],
  ['is waited for', 1, null],
])('a refused end behind which another attempt %s is let go of at the next look', async (_what, attempt, agent) => {
  const { id } = await refusedHere();
  await sql`UPDATE executions SET attempt = ${attempt}, agent_id = ${agent} WHERE id = ${id}`;
  await lookForMoved();
  expect(tracker.get(id)).toBeUndefined();
});

test('a refused end is not let go of while it can be stored, and its attempt is not lost with its agent, which was linked elsewhere', async () => {
  const first = await refusedHere();
  const { id, current } = first;
  const { agentId: agent } = current;
  await sql`INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots, replica_id)
    VALUES (${agent}, ${tenantId}, ${agent}, ${Buffer.from(agent)}, '', '', 0, 1, ${randomUUID()})`;
  tracker.agentMoved(agent);
  await lookForMoved();
  expect(tracker.get(id)).toBe(first);
  // It was started anew, and holds nothing any more.
  await tracker.reconcile(linked(agent), create(HelloSchema), false);
  expect(tracker.get(id)).toBe(first);
  await sql`ALTER TABLE executions DROP CONSTRAINT refused`;
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  await vi.waitFor(() => expect(acknowledged).toEqual([id]));
  expect(await stored(first)).toMatchObject({ state: State.SUCCEEDED, output_json: '{"of":1}' });
});

test('an end that is being stored is not let go of, though the database has it already', async () => {
  const first = await refusedHere();
  const { id, current } = first;
  await sql`ALTER TABLE executions DROP CONSTRAINT refused`;
  await finishExecutions(sql, [finishedRow({ id, tenant_id: tenantId, agent_id: current.agentId })]);
  first.endRefused = undefined;
  await lookForMoved();
  expect(tracker.get(id)).toBe(first);
});

test.each([
  ['runs', false],
  ['has ended, and is refused', true],
])('a row that was read before the next attempt began does not take its place when that %s', async (_what, ends) => {
  const [gone, next] = [randomUUID(), randomUUID()];
  const { id } = await running(gone);
  const read = Promise.withResolvers<void>();
  readable = read.promise;
  const lost = tracker.agentLost(gone, 'it is gone');
  await vi.waitFor(() => expect(readings).toEqual([id]));
  // Meanwhile the execution has come to another agent.
  await sql`UPDATE executions SET attempt = 2, agent_id = ${next} WHERE id = ${id}`;
  const now = new Date();
  const times = { createTime: now, queueTime: now, assignTime: now, startTime: now, endTime: undefined };
  const followed = tracker.track(resolvedOf(id), times, 0);
  followed.history.push({ state: State.RUNNING, attempt: 2, agentId: next });
  if (ends) {
    await refuseEnds();
    await endings.end(followed, succeeded);
    await vi.waitFor(() => expect(followed.endRefused).toBeDefined());
  }
  read.resolve();
  await lost;
  expect(tracker.get(id)).toBe(followed);
  expect(followed.current).toMatchObject({ attempt: 2, agentId: next });
  expect(await sql`SELECT attempt, end_time FROM executions WHERE id = ${id}`).toEqual([
    { attempt: 2, end_time: null },
  ]);
});

/** An agent whose lease has ended, with an attempt. */
async function leaseless(): Promise<{ agent: string; id: string }> {
  const agent = randomUUID();
  await sql`INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots, lease_end_time)
    VALUES (${agent}, ${tenantId}, ${agent}, ${Buffer.from(agent)}, '', '', 0, 1, now())`;
  const { id } = await running(agent);
  return { agent, id };
}

/** One that has a lease again while its attempt is being ended, which goes on with `read`. */
async function linkedMeanwhile() {
  const { agent, id } = await leaseless();
  const read = Promise.withResolvers<void>();
  readable = read.promise;
  const lost = tracker.agentLost(agent, 'it is gone');
  await vi.waitFor(() => expect(readings).toEqual([id]));
  await sql`UPDATE agents SET lease_end_time = NULL WHERE id = ${agent}`;
  return { agent, id, read, lost };
}

test('an agent that is linked while its attempts are being ended keeps them, and goes on with them', async () => {
  const { agent, id, read, lost } = await linkedMeanwhile();
  const hello = create(HelloSchema, { held: [{ ref: { executionId: id, attempt: 1 } }] });
  const answer = tracker.reconcile(linked(agent), hello, true);
  read.resolve();
  await lost;
  expect(await answer).toMatchObject({ resume: [{ executionId: id, attempt: 1 }], drop: [] });
  expect(tracker.get(id)).toMatchObject({
    ending: false,
    current: { state: State.RUNNING, attempt: 1, agentId: agent },
  });
  expect(acknowledged).toEqual([]);
  tellResult(agent, id, 1);
  await vi.waitFor(() => expect(acknowledged).toEqual([id]));
  const [row] = await sql`SELECT state, output_json FROM executions WHERE id = ${id}`;
  expect(row).toEqual({ state: State.SUCCEEDED, output_json: '{"of":1}' });
});

test('nothing is looked at of an agent that has a lease, and everything is lost of one that has none', async () => {
  const { agent, id } = await leaseless();
  await sql`UPDATE agents SET lease_end_time = NULL WHERE id = ${agent}`;
  await tracker.agentLost(agent, 'it is gone');
  expect(readings).toEqual([]);
  await sql`UPDATE agents SET lease_end_time = now() WHERE id = ${agent}`;
  await tracker.agentLost(agent, 'it is gone');
  expect(await sql`SELECT state, agent_id FROM executions WHERE id = ${id}`).toEqual([
    { state: State.PENDING, agent_id: null },
  ]);
});

test('an agent that comes and goes while its attempts are being ended loses none of them for good that may be tried again', async () => {
  const { agent, id, read, lost } = await linkedMeanwhile();
  onCancelRead = () => sql`UPDATE agents SET lease_end_time = now() WHERE id = ${agent}`;
  read.resolve();
  await lost;
  expect(tracker.get(id)).toBeUndefined();
  expect(await sql`SELECT state, end_time FROM executions WHERE id = ${id}`).toEqual([
    { state: State.RUNNING, end_time: null },
  ]);
});

/** The log of a first attempt, all of which is stored. */
function logOf(id: string): AttemptLog {
  const writer = new GroupCommit<NewLogChunk, void>({ write: async () => [], concurrency: 1, maxItems: 1 });
  const stored = { stdout: 30, stderr: 20 };
  return new AttemptLog({ tenantId, executionId: id, attempt: 1, stored, writer, retries, onStored: () => undefined });
}

test('how long its log is stays known of an attempt that is put back, and of a result that is refused', async () => {
  const back = await running();
  back.log = logOf(back.id);
  await endings.requeue(back, Code.ENVIRONMENT_FAILED, 'its disk is full');
  expect(await sql`SELECT stdout_bytes, stderr_bytes FROM attempts WHERE execution_id = ${back.id}`).toEqual([
    { stdout_bytes: 30, stderr_bytes: 20 },
  ]);
  const refused = await running();
  refused.log = logOf(refused.id);
  await sql`ALTER TABLE executions ADD CONSTRAINT refused CHECK (error_code IS NOT NULL) NOT VALID`;
  await endings.end(refused, succeeded);
  await vi.waitFor(() => expect(acknowledged).toContain(refused.id));
  expect(await sql`SELECT error_code, stdout_bytes, stderr_bytes FROM executions WHERE id = ${refused.id}`).toEqual([
    { error_code: Code.INTERNAL, stdout_bytes: 30, stderr_bytes: 20 },
  ]);
});
