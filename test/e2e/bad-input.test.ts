import { beforeAll, describe, expect, test } from 'vitest';
import { BAD_INPUTS, BAD_RUNS, HTTP_STATUS } from '../fixtures/bad-input.ts';
import { type HttpAnswer, http } from '../support/http.ts';
import { startStack } from '../support/stack.ts';

/** No agent: whatever is accepted stays, and is seen by `nothingWasWritten`. */
const stack = await startStack({ agents: [] });
const { clients } = stack;

const ECHO = {
  name: 'echo',
  version: '1.0.0',
  code: 'def handler(input):\n    return input\n',
  inputSchema: { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] },
};

beforeAll(async () => {
  await stack.modules.createModule({ module: ECHO });
});

async function nothingWasWritten(): Promise<void> {
  const [{ executions }, { modules }, { agents }] = await Promise.all([
    stack.executions.listExecutions({}),
    stack.modules.listModules({}),
    stack.clients.agents.listAgents({}),
  ]);
  expect(executions).toEqual([]);
  expect(modules.map(({ name, version }) => `${name} ${version}`)).toEqual(['echo 1.0.0']);
  expect(agents).toEqual([]);
}

/** The fields that the error is about, from its `buf.validate.Violations`. */
function fieldsOf(answer: HttpAnswer): string[] {
  const violations = answer.json?.details?.[0]?.debug?.violations ?? [];
  return violations.map(({ field }: { field: { elements: { fieldName: string }[] } }) =>
    field.elements.map(({ fieldName }) => fieldName).join('.'),
  );
}

function expectRefusal(
  answer: HttpAnswer,
  row: { code?: string; field?: string; message?: string; status?: number },
): void {
  const { code = 'invalid_argument', field, message = '' } = row;
  expect(answer.json, answer.text.slice(0, 500)).toMatchObject({ code, message: expect.stringContaining(message) });
  expect(answer.headers['content-type']).toBe('application/json');
  expect(answer.status).toBe(row.status ?? HTTP_STATUS[code]);
  if (field === undefined) return;
  expect(answer.json.message).toContain(field);
  // A key of a map and an item of a list are told in the message; the detail names the field.
  const [name = ''] = field.split('[');
  expect(fieldsOf(answer).map((path) => path.split('[')[0])).toContain(name);
}

describe('Connect JSON refuses', () => {
  test.each(BAD_INPUTS)('$method: $what', async (row) => {
    const body = row.method === 'ModuleService/CreateModule' ? { module: row.body } : row.body;
    expectRefusal(await clients.connectJson(row.method, body), row);
    await nothingWasWritten();
  });
});

describe('REST refuses', () => {
  test.each(BAD_INPUTS.filter(({ path }) => path !== undefined))('$path: $what', async (row) => {
    const [method = '', path = ''] = row.path?.split(' ') ?? [];
    const inPath = row.body instanceof Object && 'id' in row.body && path.includes(String(row.body.id));
    const body = method === 'POST' ? (inPath ? {} : row.body) : undefined;
    const answer = await clients.rest(method, path, body);
    const status = row.code === 'resource_exhausted' ? 413 : HTTP_STATUS[row.code ?? 'invalid_argument'];
    expectRefusal(answer, { ...row, ...(status !== undefined && { status }) });
    await nothingWasWritten();
  });

  test.each(BAD_RUNS)('POST $path: $what', async ({ path, body, status, code, message }) => {
    expectRefusal(await clients.rest('POST', path, body), { status, code, message });
    await nothingWasWritten();
  });

  test('a path, a method and a content type that it does not have', async () => {
    expectRefusal(await clients.rest('GET', '/nope'), { code: 'not_found', message: 'GET /nope' });
    expectRefusal(await clients.rest('PATCH', '/modules'), { code: 'unimplemented', status: 405 });
    const headers = { 'content-type': 'text/plain' };
    expectRefusal(await clients.rest('POST', '/modules', '{}', { headers }), { code: 'unimplemented', status: 415 });
  });
});

describe('without a credential that is known', () => {
  const KEYS = {
    none: undefined,
    'an unknown key': `Bearer hk_${'A'.repeat(43)}`,
    'a key that is none': 'Bearer x',
    'another scheme': 'Basic eDp5',
    'an empty key': 'Bearer ',
    'a key with bytes beyond ASCII': 'Bearer hk_\u00ff',
  };

  test.each(Object.entries(KEYS))('%s', async (_, authorization) => {
    const headers = { 'content-type': 'application/json', ...(authorization && { authorization }) };
    const execute = `${clients.url}/harrier.v1.ExecutionService/Execute`;
    for (const [url, method] of [
      [execute, 'POST'],
      [`${clients.url}/executions`, 'GET'],
      [`${clients.url}/run/echo`, 'POST'],
    ] as const) {
      const answer = await http(url, { method, headers, ...(method === 'POST' && { body: '{"n":1}' }) });
      expectRefusal(answer, { code: 'unauthenticated' });
    }
    await nothingWasWritten();
  });
});

test('a caller that sends what was refused in a good form is served', async () => {
  const answer = await clients.rest('POST', '/executions', { module: 'echo', input: { n: 1 } });
  expect(answer.json).toMatchObject({ state: 'PENDING', module: 'echo', version: '1.0.0' });
});
