import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { Code as ConnectCode } from '@connectrpc/connect';
import { Execution_State as ExecutionState } from '@harrier/shared/gen/execution';
import { type Schedule, ScheduleFiring_State as State } from '@harrier/shared/gen/schedule';
import { WorkflowRun_State as RunState, WorkflowSchema } from '@harrier/shared/gen/workflow';
import { beforeAll, describe, expect, test } from 'vitest';
import { http } from '../support/http.ts';
import { firingsOf, makeSchedule, schedule, statesOf, timesOf, untilFirings } from '../support/schedules.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { ended, untilNode } from '../support/workflows.ts';

const stack = await startStack();
const { clients } = stack;
const { schedules } = clients;

const TELL = {
  name: 'tell',
  version: '1.0.0',
  code: `import os\ndef handler(input):\n    return {"n": input["n"], "time": os.environ["HARRIER_SCHEDULE_TIME"]}\n`,
  inputSchema: { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] },
};
/** Does nothing that an agent is needed for. */
const QUICK = { name: 'quick', version: '1.0.0', nodes: [{ id: 't', transform: { expression: 'input' } }] };
/** Goes on until it is told to end. */
const HOLD = { name: 'hold', version: '1.0.0', nodes: [{ id: 's', signal: {} }] };
const SLEEP = { code: { source: 'import time\ndef handler(input):\n    time.sleep(600)\n' } };
const EACH_SECOND = { cron: { expression: '* * * * * *' } };
const QUICKLY = { ...EACH_SECOND, workflow: { name: 'quick' } };
const HOLDING = { interval: '1s', workflow: { name: 'hold' } };

beforeAll(async () => {
  await stack.modules.createModule({ module: TELL });
  for (const workflow of [QUICK, HOLD]) {
    await clients.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, workflow) });
  }
});

/** Waits until a schedule that fires each second has done so twice more: what another one would have done by then, it has. */
async function twoSeconds(): Promise<void> {
  const name = await makeSchedule(clients, QUICKLY);
  await untilFirings(clients, name, 'STARTED', 3);
  await schedules.deleteSchedule({ name });
}

const pause = async (name: string) => (await schedules.pauseSchedule({ name })).schedule;

describe('a time', () => {
  test('starts an execution, which knows it, and no second is left out', async () => {
    const run = { module: 'tell', input: { n: 7 }, labels: { team: 'a' } };
    const name = await makeSchedule(clients, { ...EACH_SECOND, run });
    await untilFirings(clients, name, 'STARTED', 3);
    await pause(name);
    const firings = await firingsOf(clients, name);
    const times = timesOf(firings);
    expect(times).toEqual(times.map((_, i) => (times[0] ?? 0) + i * 1000));
    for (const { executionId, time } of firings) {
      const execution = await until(`${executionId} to end`, async () => {
        const found = (await stack.executions.getExecution({ id: executionId })).execution;
        return found?.endTime === undefined ? undefined : found;
      });
      expect(execution).toMatchObject({
        state: ExecutionState.SUCCEEDED,
        output: { n: 7, time: timestampDate(time ?? expect.fail('no time')).toISOString() },
        labels: { team: 'a', schedule: name },
      });
    }
    const { executions } = await stack.executions.listExecutions({ labelSelector: `schedule=${name}` });
    expect(executions.map(({ id }) => id).toSorted()).toEqual(firings.map(({ executionId }) => executionId).toSorted());
  });

  test('starts a run of a workflow with its input', async () => {
    const name = await makeSchedule(clients, { ...EACH_SECOND, workflow: { name: 'quick', input: { a: [1] } } });
    const [first] = await untilFirings(clients, name, 'STARTED', 1);
    await pause(name);
    const run = await ended(clients, first?.runId ?? '');
    expect(JSON.parse(run.outputJson)).toEqual({ a: [1] });
    expect(run.labels).toEqual({ schedule: name });
  });

  test('that comes once fires once, and the schedule is over', async () => {
    const once = new Date(Date.now() + 1_500).toISOString();
    const name = await makeSchedule(clients, { once, workflow: { name: 'quick' } });
    expect(
      (await schedules.getSchedule({ name })).schedule?.nextTimes.map((time) => timestampDate(time).toISOString()),
    ).toEqual([once]);
    const firings = await untilFirings(clients, name, 'STARTED', 1);
    expect(timesOf(firings)).toEqual([Date.parse(once)]);
    expect((await schedules.getSchedule({ name })).schedule?.nextTimes).toEqual([]);
  });

  test('is put off by jitter, and is noticed no earlier', async () => {
    const name = await makeSchedule(clients, { interval: '2s', jitter: '1.9s', workflow: { name: 'quick' } });
    const firings = await untilFirings(clients, name, 'STARTED', 2);
    const times = timesOf(firings);
    const dues = firings.map(({ dueTime }) => timestampDate(dueTime ?? expect.fail('not due')).getTime());
    for (const [i, due] of dues.entries()) {
      expect(due).toBeGreaterThanOrEqual(times[i] ?? 0);
      expect(due).toBeLessThan((times[i] ?? 0) + 1_900);
      expect(timestampDate(firings[i]?.createTime ?? expect.fail('no time')).getTime()).toBeGreaterThanOrEqual(due);
    }
    await pause(name);
  });

  test('whose target is refused for good is FAILED with the reason, and the next one comes all the same', async () => {
    await stack.modules.createModule({ module: { ...TELL, name: 'gone' } });
    const name = await makeSchedule(clients, { ...EACH_SECOND, run: { module: 'gone', input: { n: 1 } } });
    await stack.modules.deleteModule({ name: 'gone' });
    const firings = await untilFirings(clients, name, 'FAILED', 2);
    expect(firings.find(({ state }) => state === State.FAILED)?.message).toContain('"gone"');
    await pause(name);
  });
});

describe('a pause', () => {
  test('lets no time fire, and what was in it is not missed', async () => {
    const name = await makeSchedule(clients, { ...QUICKLY, misfire: { policy: 'ALL', grace: '1s' } });
    await untilFirings(clients, name, 'STARTED', 1);
    expect(await pause(name)).toMatchObject({ paused: true, nextTimes: [] });
    const before = await firingsOf(clients, name);
    await twoSeconds();
    expect(timesOf(await firingsOf(clients, name))).toEqual(timesOf(before));
    const { schedule: resumed } = await schedules.resumeSchedule({ name });
    const [next] = resumed?.nextTimes.map((time) => timestampDate(time).getTime()) ?? [];
    expect(next).toBeGreaterThan((timesOf(before).at(-1) ?? 0) + 2_000);
    await until('a time to fire', async () => timesOf(await firingsOf(clients, name)).includes(next ?? 0));
    expect(timesOf(await firingsOf(clients, name)).slice(before.length)[0]).toBe(next);
    await pause(name);
  });
});

test('times behind the end are none, also when the end is put off later', async () => {
  const given = { ...QUICKLY, misfire: { policy: 'ALL', grace: '1s' } };
  const endMs = Math.ceil(Date.now() / 1_000) * 1_000 + 2_000;
  const name = await makeSchedule(clients, { ...given, endTime: new Date(endMs).toISOString() });
  await until('the end to be past', () => Date.now() > endMs + 3_000);
  expect(timesOf(await firingsOf(clients, name)).at(-1)).toBe(endMs - 1_000);
  const later = new Date(endMs + 3_600_000).toISOString();
  const { schedule: changed } = await schedules.updateSchedule({
    name,
    schedule: schedule({ ...given, name, endTime: later }),
  });
  const [next] = changed?.nextTimes.map((time) => timestampDate(time).getTime()) ?? [];
  expect(next).toBeGreaterThan(endMs + 2_000);
  await until('a time to fire', async () => (timesOf(await firingsOf(clients, name)).at(-1) ?? 0) > endMs);
  await pause(name);
  const times = timesOf(await firingsOf(clients, name));
  expect(times.find((ms) => ms >= endMs)).toBe(next);
});

describe('a time that comes while what was started goes on', () => {
  test('does not fire with SKIP', async () => {
    const name = await makeSchedule(clients, { ...HOLDING, overlap: { policy: 'SKIP' } });
    const [first, second] = await untilFirings(clients, name, 'SKIPPED', 2);
    expect(first?.state).toBe(State.STARTED);
    expect(second?.message).toBe(
      `the one of ${timestampDate(first?.time ?? expect.fail('no time'))
        .toISOString()
        .replace('.000Z', 'Z')} has not ended`,
    );
    await untilNode(clients, first?.runId ?? '', 's', 'WAITING');
    await clients.workflows.signalWorkflowRun({ id: first?.runId ?? '', path: 's', payloadJson: '{}' });
    const firings = await untilFirings(clients, name, 'STARTED', 2);
    await pause(name);
    expect(statesOf(firings)[0]).toBe('STARTED');
  });

  test('waits with QUEUE, and those that wait are started one after the other', async () => {
    const name = await makeSchedule(clients, { ...HOLDING, overlap: { policy: 'QUEUE', max_queued: 2 } });
    const full = await untilFirings(clients, name, 'SKIPPED', 1);
    expect(statesOf(full).slice(0, 4)).toEqual(['STARTED', 'QUEUED', 'QUEUED', 'SKIPPED']);
    expect(full[3]?.message).toBe('2 others wait already');
    // No more are to come; what waits is started when it goes on.
    const { schedule: made } = await schedules.getSchedule({ name });
    const endTime = new Date(Date.now() + 1_000).toISOString();
    await schedules.updateSchedule({
      name,
      schedule: schedule({ ...HOLDING, name, endTime, overlap: { policy: 'QUEUE' } }),
    });
    expect(made?.id).toBe((await schedules.getSchedule({ name })).schedule?.id);
    for (let i = 0; i < 3; i++) {
      const firings = await untilFirings(clients, name, 'STARTED', i + 1);
      const { runs } = await clients.workflows.listWorkflowRuns({ labelSelector: `schedule=${name}` });
      const open = runs.filter(({ endTime }) => endTime === undefined);
      expect(open.map(({ id }) => id)).toEqual([firings[i]?.runId]);
      await untilNode(clients, open[0]?.id ?? '', 's', 'WAITING');
      await clients.workflows.signalWorkflowRun({ id: open[0]?.id ?? '', path: 's', payloadJson: '{}' });
    }
    await schedules.deleteSchedule({ name });
  });

  test.each<[string, Record<string, JsonValue>]>([
    ['an execution', { run: SLEEP }],
    ['a run', { workflow: { name: 'hold' } }],
  ])('takes the place of %s with CANCEL', async (_, target) => {
    const name = await makeSchedule(clients, { interval: '2s', ...target, overlap: { policy: 'CANCEL' } });
    const firings = await untilFirings(clients, name, 'STARTED', 2);
    await pause(name);
    const [first] = firings;
    if (first?.runId !== '') {
      const { run } = await clients.workflows.getWorkflowRun({ id: first?.runId ?? '' });
      expect(run?.state).toBe(RunState.CANCELLED);
    } else {
      const { execution } = await stack.executions.getExecution({ id: first.executionId });
      expect(execution?.state).toBe(ExecutionState.CANCELLED);
      expect(execution?.error?.message).toContain(`the schedule ${name} has come to its next time`);
    }
    await schedules.deleteSchedule({ name });
  });
});

describe('bad input', () => {
  const run = { module: 'tell', input: { n: 1 } };
  const fine = { name: 'fine', cron: { expression: '0 3 * * *' }, run };
  const past = '2020-01-01T00:00:00Z';
  test.each<[string, Record<string, JsonValue | undefined>, string]>([
    ['no cron', { cron: { expression: '61 * * * *' } }, 'schedule.cron.expression'],
    ['a day that never comes', { cron: { expression: '0 0 30 2 *' } }, 'schedule.cron.expression'],
    [
      'times that no clock shows',
      { cron: { expression: '* * 2 * 3 0L', time_zone: 'Europe/Berlin' } },
      'schedule.cron.expression',
    ],
    ['a date as cron', { cron: { expression: '2030-01-01T00:00:00' } }, 'schedule.cron.expression'],
    [
      'an unknown time zone',
      { cron: { expression: '* * * * *', time_zone: 'Mars/Olympus' } },
      'schedule.cron.time_zone',
    ],
    ['an interval that is too short', { interval: '0.5s' }, 'schedule.interval'],
    ['an interval in fractions', { interval: '1.0005s' }, 'schedule.interval'],
    ['a time in the past', { once: past }, 'schedule.once'],
    ['an end in the past', { end_time: past }, 'schedule.end_time'],
    [
      'an end before the start',
      { start_time: '2040-01-02T00:00:00Z', end_time: '2040-01-01T00:00:00Z' },
      'schedule.end_time',
    ],
    ['no times', { cron: undefined }, 'schedule.times'],
    ['no target', { run: undefined }, 'schedule.target'],
    ['a name with a space', { name: 'a b' }, 'schedule.name'],
    ['an unknown module', { run: { module: 'nobody' } }, 'schedule.run.module'],
    ['input that its module refuses', { run: { module: 'tell', input: {} } }, 'schedule.run.input'],
    ['a key', { run: { ...run, idempotency_key: 'k' } }, 'schedule.run.idempotency_key'],
    ['an unknown workflow', { run: undefined, workflow: { name: 'nobody' } }, 'schedule.workflow.name'],
    ['more than a schedule may hold', { run: { code: { source: `# ${'x'.repeat(256 * 1024)}` } } }, 'schedule'],
    ['too long a grace', { misfire: { grace: '3600s' } }, 'schedule.misfire.grace'],
  ])('%s', async (_, wrong, field) => {
    const given = { ...fine, ...('interval' in wrong || 'once' in wrong ? { cron: undefined } : {}), ...wrong };
    const answer = await clients.connectJson('ScheduleService/CreateSchedule', { schedule: given });
    expect(answer.json, answer.text).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining(field),
    });
    expect(
      answer.json.details[0].debug.violations[0].field.elements.map(
        ({ fieldName }: { fieldName: string }) => fieldName,
      ),
    ).toEqual(field.split('.'));
    const { schedules: made } = await schedules.listSchedules({ namePrefix: 'fine' });
    expect(made).toEqual([]);
  });

  test('a name that is taken, and one that there is not', async () => {
    const name = await makeSchedule(clients, { ...fine, name: 'taken' });
    await expect(makeSchedule(clients, { ...fine, name })).rejects.toMatchObject({ code: ConnectCode.AlreadyExists });
    const other = { name, schedule: schedule({ ...fine, name: 'other' }) };
    await expect(schedules.updateSchedule(other)).rejects.toMatchObject({ code: ConnectCode.InvalidArgument });
    await schedules.deleteSchedule({ name });
    for (const call of [
      () => schedules.getSchedule({ name }),
      () => schedules.pauseSchedule({ name }),
      () => schedules.deleteSchedule({ name }),
      () => schedules.listScheduleFirings({ name }),
      () => schedules.updateSchedule({ name, schedule: schedule({ ...fine, name }) }),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: ConnectCode.NotFound });
    }
  });
});

describe('two who change a schedule at once', () => {
  const base = { ...EACH_SECOND, workflow: { name: 'quick' }, paused: true };

  test('the second one is refused, whatever the first one did, and may read it again', async () => {
    const name = await makeSchedule(clients, base);
    const read = async () => (await schedules.getSchedule({ name })).schedule ?? expect.fail('there is none');
    const change = async (given: Schedule, description: string) => {
      return await schedules.updateSchedule({ name, schedule: { ...given, description } });
    };
    for (const first of [
      async () => await change(await read(), 'first'),
      async () => await schedules.resumeSchedule({ name }),
      async () => await schedules.pauseSchedule({ name }),
    ]) {
      const stale = await read();
      await first();
      const before = await read();
      await expect(change(stale, 'second')).rejects.toMatchObject({
        code: ConnectCode.Aborted,
        rawMessage: expect.stringContaining('read it again'),
      });
      expect(await read()).toEqual(before);
      await change(before, 'second');
    }
    // Who gives no time replaces whatever there is.
    const { updateTime, ...whole } = await read();
    expect((await change(whole, 'third')).schedule?.description).toBe('third');
    await schedules.deleteSchedule({ name });
  });

  test('of all who have read the same, one is accepted', async () => {
    const name = await makeSchedule(clients, base);
    const { schedule: read } = await schedules.getSchedule({ name });
    const changes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        schedules.updateSchedule({ name, schedule: { ...(read ?? expect.fail('none')), description: `${i}` } }),
      ),
    );
    const accepted = changes.flatMap((one) => (one.status === 'fulfilled' ? [one.value.schedule] : []));
    expect(accepted).toHaveLength(1);
    expect((await schedules.getSchedule({ name })).schedule).toEqual(accepted[0]);
    await schedules.deleteSchedule({ name });
  });
});

test('over REST', async () => {
  const body = {
    name: 'rest',
    cron: { expression: '0 30 2 * * *', timeZone: 'Europe/Berlin' },
    workflow: { name: 'quick' },
  };
  const made = await clients.rest('POST', '/schedules', body);
  expect(made.status).toBe(200);
  expect(made.json).toMatchObject({
    ...body,
    nextTimes: expect.arrayContaining([expect.stringMatching(/T0[01]:30:00Z$/)]),
  });
  expect(made.json.nextTimes).toHaveLength(5);
  expect((await clients.rest('GET', '/schedules/rest?next_count=2')).json.nextTimes).toHaveLength(2);
  const listed = (await clients.rest('GET', '/schedules?name_prefix=re')).json.schedules;
  expect(listed).toEqual([{ ...made.json, nextTimes: made.json.nextTimes.slice(0, 1) }]);
  const changed = await clients.rest('PUT', '/schedules/rest', { ...body, cron: { expression: '* * * * * *' } });
  expect(changed.json).toMatchObject({ id: made.json.id, cron: { expression: '* * * * * *' } });
  const stale = await clients.rest('PUT', '/schedules/rest', made.json);
  expect(stale).toMatchObject({ status: 409, json: { code: 'aborted' } });
  await untilFirings(clients, 'rest', 'STARTED', 1);
  expect((await clients.rest('POST', '/schedules/rest/pause', {})).json).toMatchObject({ paused: true });
  const whole = { ...body, description: 'mine' };
  expect((await clients.rest('PUT', '/schedules/rest', whole)).json).toMatchObject({ ...whole, paused: true });
  expect((await clients.rest('PUT', '/schedules/rest', { ...body, paused: false })).json.paused).toBeUndefined();
  expect((await clients.rest('PUT', '/schedules/rest', { ...body, paused: true })).json.paused).toBe(true);
  const { firings } = (await clients.rest('GET', '/schedules/rest/firings?page_size=1')).json;
  expect(firings).toEqual([expect.objectContaining({ state: 'STARTED', runId: expect.any(String) })]);
  expect((await clients.rest('POST', '/schedules/rest/resume', {})).json.paused).toBeUndefined();
  expect((await clients.rest('DELETE', '/schedules/rest')).status).toBe(200);
  expect((await clients.rest('GET', '/schedules/rest')).status).toBe(404);
});

test('firings are paged, and can be asked for by their state', async () => {
  const name = await makeSchedule(clients, { ...HOLDING, overlap: { policy: 'SKIP' } });
  const all = (await untilFirings(clients, name, 'SKIPPED', 2)).toReversed();
  await pause(name);
  const page = await schedules.listScheduleFirings({ name, pageSize: 1, state: State.SKIPPED });
  const rest = await schedules.listScheduleFirings({ name, pageToken: page.nextPageToken, state: State.SKIPPED });
  const skipped = (await firingsOf(clients, name)).filter(({ state }) => state === State.SKIPPED);
  expect(timesOf([...page.firings, ...rest.firings])).toEqual(timesOf(skipped.toReversed()));
  expect(timesOf(skipped)).toEqual(expect.arrayContaining(timesOf(all.filter(({ state }) => state === State.SKIPPED))));
  const wrong = schedules.listScheduleFirings({ name, pageToken: 'WyJ4Il0' });
  await expect(wrong).rejects.toMatchObject({ code: ConnectCode.InvalidArgument });
});

test('what became of times is counted', async () => {
  const { text } = await http(stack.controlPlane.metricsUrl);
  for (const outcome of ['started', 'skipped', 'failed']) {
    expect(
      Number(new RegExp(`^harrier_schedule_firings_total\\{outcome="${outcome}"\\} (\\d+)$`, 'm').exec(text)?.[1]),
    ).toBeGreaterThan(0);
  }
  expect(text).toMatch(/^harrier_schedule_lateness_seconds_count [1-9]/m);
});
