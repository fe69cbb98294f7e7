import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { timestampDate, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code as ConnectCode, ConnectError } from '@connectrpc/connect';
import { type ScheduleFiring, ScheduleFiring_State as State } from '@harrier/shared/gen/schedule';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import type { Clients } from '../support/clients.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { firingsOf, makeSchedule, statesOf, timesOf, untilFirings } from '../support/schedules.ts';
import { Tenant } from '../support/tenant.ts';
import { until } from '../support/wait.ts';

// Two replicas on one PostgreSQL, and no agent: what is started are runs of workflows that need none.
const MAX_SCHEDULES = 12;
const QUICK = { name: 'quick', version: '1.0.0', nodes: [{ id: 't', transform: { expression: 'input' } }] };
const EACH_SECOND = { cron: { expression: '* * * * * *' }, workflow: { name: 'quick' } };

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const options = {
  databaseUrl: postgres.url,
  env: { HARRIER_MAX_SCHEDULES: String(MAX_SCHEDULES), HARRIER_MAX_QUEUED: '1' },
};
const replicas = await Promise.all([1, 2].map(() => ControlPlane.start(options)));
afterAll(async () => {
  for (const replica of replicas) if (replica.program.running) await replica.stop();
});
const sql = connect({ url: postgres.url }, 1);
afterAll(() => sql.end());

const clientsOf = (position: 0 | 1): Clients => (replicas[position] as ControlPlane).clients;

beforeAll(async () => {
  await clientsOf(0).workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, QUICK) });
});

/** Starts a replica again on its port. @param failpoints where it is to end */
async function startAgain(position: 0 | 1, failpoints?: string): Promise<void> {
  const { dataDirectory, port } = replicas[position] as ControlPlane;
  const env = { ...options.env, ...(failpoints === undefined ? {} : { HARRIER_FAILPOINTS: failpoints }) };
  replicas[position] = await ControlPlane.start({ ...options, env, dataDirectory, port });
}

/** The ids of the runs that a schedule has started, however often it has said so. */
async function runsOf({ workflows }: Clients, name: string): Promise<string[]> {
  const { runs } = await workflows.listWorkflowRuns({ labelSelector: `schedule=${name}`, pageSize: 1000 });
  return runs.map(({ id }) => id);
}

/** All of its times fired, each once, and each started one run. */
async function expectEachOnce(clients: Clients, name: string, firings: readonly ScheduleFiring[]): Promise<void> {
  const times = timesOf(firings);
  expect(times).toEqual(times.map((_, i) => (times[0] ?? 0) + i * 1_000));
  expect(new Set(statesOf(firings))).toEqual(new Set(['STARTED']));
  expect((await runsOf(clients, name)).toSorted()).toEqual(firings.map(({ runId }) => runId).toSorted());
}

/** Lets a schedule end, and waits until all that was to be started is. */
async function settled(clients: Clients, name: string): Promise<ScheduleFiring[]> {
  const { schedule } = await clients.schedules.getSchedule({ name });
  if (schedule === undefined) return expect.fail(`there is no schedule ${name}`);
  schedule.endTime = timestampFromMs(Date.now() + 1_000);
  await clients.schedules.updateSchedule({ name, schedule });
  return await until(`the firings of ${name} to be settled`, async () => {
    const { schedule: ended } = await clients.schedules.getSchedule({ name });
    const firings = await firingsOf(clients, name);
    const isSettled = ended?.nextTimes.length === 0 && firings.every(({ state }) => state !== State.PENDING);
    return isSettled ? firings : undefined;
  });
}

test('no time fires twice or is lost although the replicas are killed in turn', async () => {
  const given = { ...EACH_SECOND, misfire: { policy: 'ALL', max: 1_000 } };
  const names = await Promise.all([0, 1, 0].map((position) => makeSchedule(clientsOf(position as 0 | 1), given)));
  for (const position of [0, 1, 0, 1] as const) {
    const other = position === 0 ? 1 : 0;
    const before = (await firingsOf(clientsOf(other), names[0] ?? '')).length;
    await replicas[position]?.kill();
    // The one that is left goes on.
    await untilFirings(clientsOf(other), names[0] ?? '', 'STARTED', before + 2);
    await startAgain(position);
  }
  for (const name of names) {
    const firings = await settled(clientsOf(0), name);
    expect(firings.length).toBeGreaterThan(8);
    await expectEachOnce(clientsOf(1), name, firings);
    await clientsOf(0).schedules.deleteSchedule({ name });
  }
});

test.each(['schedule-before-commit', 'schedule-decided', 'schedule-started'])(
  'nothing is lost or repeated when the replica ends at %s',
  async (failpoint) => {
    await replicas[1]?.stop();
    const name = await makeSchedule(clientsOf(0), EACH_SECOND);
    await untilFirings(clientsOf(0), name, 'STARTED', 1);
    await replicas[0]?.stop();
    await startAgain(0, `${failpoint}:2`);
    await until('the replica to end', () => replicas[0]?.program.running === false);
    await startAgain(0);
    await startAgain(1);
    const before = (await firingsOf(clientsOf(0), name)).length;
    await untilFirings(clientsOf(0), name, 'STARTED', before + 1);
    await expectEachOnce(clientsOf(1), name, await settled(clientsOf(0), name));
    await clientsOf(0).schedules.deleteSchedule({ name });
  },
);

test('what was missed while no control plane was there is made up for as the policy says', async () => {
  const make = async (misfire: Record<string, JsonValue>) => {
    return await makeSchedule(clientsOf(0), { ...EACH_SECOND, misfire: { grace: '1s', ...misfire } });
  };
  const [skip, once, all, few] = await Promise.all([
    make({ policy: 'SKIP' }),
    make({ policy: 'ONCE' }),
    make({ policy: 'ALL' }),
    make({ policy: 'ALL', max: 2 }),
  ]);
  const names = [skip, once, all, few];
  for (const name of names) await untilFirings(clientsOf(0), name, 'STARTED', 1);
  await Promise.all(replicas.map((replica) => replica.stop()));
  const stoppedMs = Date.now();
  await until('some times to be missed', () => Date.now() > stoppedMs + 5_000);
  await startAgain(0);
  await startAgain(1);
  const startedMs = Date.now();
  const found = new Map<string, ScheduleFiring[]>();
  for (const name of names) {
    await until(
      'a time after the start to fire',
      async () => (timesOf(await firingsOf(clientsOf(0), name)).at(-1) ?? 0) > startedMs,
    );
    found.set(name, await settled(clientsOf(0), name));
  }
  /** Of the time that nobody was there, without its edges: when the process ended, and what came within the grace. */
  const missed = (name: string) => {
    return (found.get(name) ?? []).filter(({ time }) => {
      const ms = timestampDate(time ?? expect.fail('no time')).getTime();
      return ms > stoppedMs && ms < stoppedMs + 4_000;
    });
  };
  // Firings that stand for all since a time behind the last one that fired before.
  const standing = (name: string) => (found.get(name) ?? []).filter(({ since }) => since !== undefined);
  expect(missed(skip).filter(({ since }) => since === undefined)).toEqual([]);
  expect(statesOf(standing(skip))).toEqual(['SKIPPED']);
  expect(missed(once).filter(({ since }) => since === undefined)).toEqual([]);
  expect(statesOf(standing(once))).toEqual(['STARTED']);
  expect(missed(all).length).toBeGreaterThanOrEqual(3);
  await expectEachOnce(clientsOf(0), all, found.get(all) ?? []);
  expect(statesOf(standing(few))).toEqual(['SKIPPED']);
  expect(standing(few)[0]?.message).toBe('missed; 2 later ones fire');
  for (const name of names) {
    const firings = found.get(name) ?? [];
    const started = firings.filter(({ state }) => state === State.STARTED);
    expect((await runsOf(clientsOf(1), name)).toSorted()).toEqual(started.map(({ runId }) => runId).toSorted());
    await clientsOf(0).schedules.deleteSchedule({ name });
  }
});

test('what is refused for want of room says so, and is started when there is some', async () => {
  const clients = clientsOf(0);
  // Nobody runs it: it takes the only place in the queue.
  const run = { code: { source: 'def handler(input):\n    return {}\n' } };
  const name = await makeSchedule(clients, { interval: '1s', run });
  const refused = await until('a firing to be refused', async () => {
    return (await firingsOf(clients, name)).find(({ state, message }) => state === State.PENDING && message !== '');
  });
  expect(refused.message).toContain('wait for an agent already');
  await clients.schedules.pauseSchedule({ name });
  const [first] = await firingsOf(clients, name);
  await clients.executions.cancelExecution({ id: first?.executionId ?? '' });
  // What was refused waits until the schedule goes on.
  await clients.schedules.resumeSchedule({ name });
  const firings = await untilFirings(clients, name, 'STARTED', 2);
  expect(firings.filter(({ state }) => state === State.STARTED).map(({ message }) => message)).toEqual(['', '']);
  await clients.schedules.deleteSchedule({ name });
  for (const { executionId } of firings)
    if (executionId !== '') await clients.executions.cancelExecution({ id: executionId });
});

test("a schedule goes on when the key that made it is gone: it is the tenant's", async () => {
  const tenant = await Tenant.create(sql, 'left');
  const replica = replicas[0] as ControlPlane;
  const maker = replica.clientsWith(tenant.apiKey);
  await maker.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, QUICK) });
  const name = await makeSchedule(maker, EACH_SECOND);
  await untilFirings(maker, name, 'STARTED', 1);
  const another = replica.clientsWith(await tenant.replaceKey());
  await until('the key to be refused', async () => {
    return await maker.schedules.getSchedule({ name }).then(
      () => undefined,
      (error: unknown) => error instanceof ConnectError && error.code === ConnectCode.Unauthenticated,
    );
  });
  const before = (await firingsOf(another, name)).length;
  await untilFirings(another, name, 'STARTED', before + 2);
  await another.schedules.deleteSchedule({ name });
});

test('a tenant sees its own schedules only, has so many of them, and the names of others are free', async () => {
  const tenants = await Promise.all(['one', 'two'].map((name) => Tenant.create(sql, name)));
  const [one, two] = tenants.map(({ apiKey }) => (replicas[0] as ControlPlane).clientsWith(apiKey)) as [
    Clients,
    Clients,
  ];
  for (const { workflows } of [one, two]) await workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, QUICK) });
  for (let i = 0; i < MAX_SCHEDULES; i++) await makeSchedule(one, { ...EACH_SECOND, name: `mine-${i}`, paused: true });
  await expect(makeSchedule(one, EACH_SECOND)).rejects.toMatchObject({
    code: ConnectCode.ResourceExhausted,
    rawMessage: expect.stringContaining(`${MAX_SCHEDULES} schedules`),
  });
  const name = 'mine-0';
  expect((await two.schedules.listSchedules({})).schedules).toEqual([]);
  for (const call of [
    () => two.schedules.getSchedule({ name }),
    () => two.schedules.deleteSchedule({ name }),
    () => two.schedules.resumeSchedule({ name }),
    () => two.schedules.listScheduleFirings({ name }),
  ]) {
    await expect(call()).rejects.toMatchObject({ code: ConnectCode.NotFound });
  }
  await makeSchedule(two, { ...EACH_SECOND, name });
  await untilFirings(two, name, 'STARTED', 1);
  expect(await firingsOf(one, name)).toEqual([]);
  await two.schedules.deleteSchedule({ name });
});
