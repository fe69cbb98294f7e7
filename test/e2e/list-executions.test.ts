import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import { beforeAll, expect, test } from 'vitest';
import { create, execute } from '../support/executions.ts';
import { code, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';

const COUNT = 25;
const stack = await startStack();
const { clients, executions } = stack;
const made: string[] = [];

beforeAll(async () => {
  await stack.modules.createModule({
    module: { name: 'even', version: '1.0.0', code: 'def handler(input):\n    return {}\n' },
  });
  for (let i = 0; i < COUNT; i++) {
    const request = i % 2 === 0 ? moduleCall('even') : code('def handler(input):\n    raise ValueError()\n');
    const { id } = await execute(executions, {
      ...request,
      labels: { parity: i % 2 === 0 ? 'even' : 'odd', third: String(i % 3) },
    });
    made.push(id);
  }
  made.push(await create(executions, { ...code('x'), agentSelector: 'none=here', labels: { parity: 'waiting' } }));
});

async function list(filter: Parameters<typeof executions.listExecutions>[0]): Promise<Execution[]> {
  return (await executions.listExecutions({ pageSize: 1000, ...filter })).executions;
}

const ids = (listed: { id: string }[]) => listed.map(({ id }) => id);
const newestFirst = (wanted: (i: number) => boolean) => made.filter((_, i) => wanted(i)).toReversed();

test('pages, newest first, give every execution once, also when new ones come in between', async () => {
  const seen: string[] = [];
  let pageToken = '';
  let pages = 0;
  do {
    const page = await executions.listExecutions({ pageSize: 7, pageToken, labelSelector: 'parity' });
    expect(page.executions.length).toBeLessThanOrEqual(7);
    seen.push(...ids(page.executions));
    ({ nextPageToken: pageToken } = page);
    if (++pages === 1) await execute(executions, { ...moduleCall('even'), labels: { late: 'yes' } });
  } while (pageToken !== '');
  expect(seen).toEqual(made.toReversed());
  expect(pages).toBe(Math.ceil((COUNT + 1) / 7));
});

test('a list leaves out inputs, outputs and attempts', async () => {
  const [first] = await list({ module: 'even' });
  expect(first).toMatchObject({ state: State.SUCCEEDED, outputJson: '', inputJson: '', attempts: [] });
});

test('filters by state, module and labels, and all of them together', async () => {
  expect(ids(await list({ state: State.FAILED }))).toEqual(newestFirst((i) => i % 2 === 1 && i < COUNT));
  expect(ids(await list({ state: State.PENDING }))).toEqual(made.slice(-1));
  expect(ids(await list({ module: 'even', labelSelector: 'parity' }))).toEqual(
    newestFirst((i) => i % 2 === 0 && i < COUNT),
  );
  expect(ids(await list({ labelSelector: 'parity=odd, third in (0, 1)' }))).toEqual(
    newestFirst((i) => i % 2 === 1 && i % 3 < 2 && i < COUNT),
  );
  expect(ids(await list({ state: State.SUCCEEDED, module: 'even', labelSelector: 'third=2' }))).toEqual(
    newestFirst((i) => i % 2 === 0 && i % 3 === 2 && i < COUNT),
  );
  expect(await list({ module: 'none' })).toEqual([]);
});

test('filters by the time of acceptance: from is inside, to is outside', async () => {
  const all = (await list({ labelSelector: 'parity' })).toReversed();
  const [from, to] = [all[5]?.createTime, all[15]?.createTime];
  if (from === undefined || to === undefined) throw new Error('an execution has no time');
  const time = ({ createTime }: Execution) => Number(createTime?.seconds) * 1e9 + (createTime?.nanos ?? 0);
  const between = await list({ createTimeFrom: from, createTimeTo: to, labelSelector: 'parity' });
  const limits = { from: Number(from.seconds) * 1e9 + from.nanos, to: Number(to.seconds) * 1e9 + to.nanos };
  expect(ids(between)).toEqual(
    ids(all.filter((execution) => time(execution) >= limits.from && time(execution) < limits.to).toReversed()),
  );
  expect(ids(between)).toContain(made[5]);
  expect(ids(between)).not.toContain(made[15]);
  expect(await list({ createTimeFrom: timestampFromDate(new Date('2100-01-01')) })).toEqual([]);
});

test('REST has the same filters and cursor', async () => {
  const first = await clients.rest('GET', '/executions?page_size=5&state=FAILED&label_selector=parity%3Dodd');
  const second = await clients.rest(
    'GET',
    `/executions?page_size=5&state=FAILED&label_selector=parity%3Dodd&page_token=${first.json.nextPageToken}`,
  );
  const wanted = newestFirst((i) => i % 2 === 1 && i < COUNT);
  expect(ids([...first.json.executions, ...second.json.executions])).toEqual(wanted.slice(0, 10));
});
