import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, startApiServer } from '../test-support/api-server.ts';
import { openRaw, readUntilClosed } from '../test-support/raw-connection.ts';
import { createSampleServices, EXECUTION_ID, LOG_BYTES } from '../test-support/sample-services.ts';

let server: ApiServer;
beforeAll(async () => {
  server = await startApiServer();
});
afterAll(() => server.close());

const AUTHORIZATION = { authorization: 'Bearer operator' };
const LOGS = `/executions/${EXECUTION_ID}/logs`;

function get(path: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(server.url + path, { headers: { ...AUTHORIZATION, ...headers } });
}

function send(
  method: string,
  path: string,
  body?: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(server.url + path, {
    method,
    ...(body === undefined ? {} : { body }),
    headers: { ...AUTHORIZATION, 'content-type': 'application/json', ...headers },
  });
}

interface ErrorBody {
  code: string;
  message: string;
}

async function errorOf(response: Response): Promise<ErrorBody & { status: number }> {
  expect(response.headers.get('content-type')).toBe('application/json');
  return { status: response.status, ...((await response.json()) as ErrorBody) };
}

describe('running a module', () => {
  test.each(['/run/echo', '/modules/execute/echo'])(
    'POST %s: the body is the input, the answer the output, both byte for byte',
    async (path) => {
      const input = '{ "a" : 1.0,\n "é": ["\\u00e9", 1e400] }';
      const response = await send('POST', path, input);
      expect(response.status).toBe(200);
      expect(await response.text()).toBe(input);
      expect(response.headers.get('harrier-execution-id')).toBe(EXECUTION_ID);
      expect(response.headers.get('content-type')).toBe('application/json');
    },
  );

  test('an empty body is the empty input', async () => {
    expect(await (await send('POST', '/run/echo')).text()).toBe('{}');
    expect(await (await fetch(`${server.url}/run/echo`, { method: 'POST', headers: AUTHORIZATION })).text()).toBe('{}');
  });

  test('other fields of the request come from the query', async () => {
    expect((await send('POST', '/run/echo?version=1.0.0&timeout=5s&labels[team]=vision', '{}')).status).toBe(200);
    expect(await errorOf(await send('POST', '/run/echo?timeout=soon', '{}'))).toMatchObject({
      status: 400,
      code: 'invalid_argument',
      message: 'timeout: not a google.protobuf.Duration: "soon"',
    });
    expect(await errorOf(await send('POST', '/run/echo?timeout=-5s', '{}'))).toMatchObject({
      message: expect.stringMatching(/^timeout: /),
    });
  });

  test('a failed execution answers its error with a status of its own', async () => {
    const response = await send('POST', '/run/fail', '{}');
    expect(response.status).toBe(500);
    expect(response.headers.get('harrier-execution-id')).toBe(EXECUTION_ID);
    expect(await response.json()).toEqual({ code: 'HANDLER_ERROR', message: 'ValueError: no', details: { line: 3 } });
    expect((await send('POST', '/run/timeout', '{}')).status).toBe(504);
  });

  test('a refused request answers the error of the call', async () => {
    expect(await errorOf(await send('POST', '/run/missing', '{}'))).toMatchObject({ status: 404, code: 'not_found' });
    expect(await errorOf(await send('POST', '/run/crash', '{}'))).toEqual({
      status: 500,
      code: 'internal',
      message: 'internal error',
    });
    const refused = await fetch(`${server.url}/run/echo`, { method: 'POST', body: 'x' });
    expect(refused.headers.get('www-authenticate')).toBe('Bearer');
    expect(await errorOf(refused)).toMatchObject({ status: 401, code: 'unauthenticated' });
    const viewer = await send('POST', '/run/echo', '{}', { authorization: 'Bearer viewer' });
    expect(await errorOf(viewer)).toMatchObject({ status: 403, code: 'permission_denied' });
  });

  test.each([
    ['{"a": }', 'body: malformed JSON at line 1, column 7: expected a value, got "}"'],
    ['[1]', 'body: expected a JSON object, got an array'],
    ['{} {}', 'body: malformed JSON at line 1, column 4: expected the end, got "{"'],
    ['\ufeff{}', 'body: malformed JSON at line 1, column 1: expected a value, got "\ufeff"'],
    ['{"a":'.repeat(200), 'body: JSON nests deeper than 100 levels'],
  ])('the body %j is refused', async (body, message) => {
    expect(await errorOf(await send('POST', '/run/echo', body))).toEqual({
      status: 400,
      code: 'invalid_argument',
      message,
    });
  });

  test('bytes that are not UTF-8 are refused', async () => {
    const response = await send('POST', '/run/echo', Uint8Array.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]));
    expect(await errorOf(response)).toMatchObject({ status: 400, message: 'body: not valid UTF-8' });
  });

  test('a body that is too large is refused, announced or not', async () => {
    const large = `{"a":"${'x'.repeat(8 * 1024 * 1024)}"}`;
    expect(await errorOf(await send('POST', '/run/echo', large))).toEqual({
      status: 413,
      code: 'resource_exhausted',
      message: 'body: larger than 8388608 bytes',
    });
    const socket = await openRaw(server.port);
    const answer = readUntilClosed(socket);
    socket.write(
      `POST /run/echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer developer\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n`,
    );
    for (let i = 0; i < 9; i++) socket.write(`100000\r\n${' '.repeat(0x100000)}\r\n`);
    socket.write('0\r\n\r\n');
    expect(await answer).toMatch(/^HTTP\/1\.1 413 /);
  });

  test.each([
    [
      { 'content-type': 'application/x-www-form-urlencoded' },
      'content-type: expected "application/json", got "application/x-www-form-urlencoded"',
    ],
    [
      { 'content-type': 'application/json; charset=latin1' },
      'content-type: expected "application/json", got "application/json; charset=latin1"',
    ],
    [{ 'content-encoding': 'gzip' }, 'content-encoding: "gzip" is not supported here'],
  ])('%j is refused', async (headers, message) => {
    expect(await errorOf(await send('POST', '/run/echo', '{}', headers as Record<string, string>))).toMatchObject({
      status: 415,
      message,
    });
  });

  test('a content type with a charset is taken', async () => {
    expect((await send('POST', '/run/echo', '{}', { 'content-type': 'application/json; charset=UTF-8' })).status).toBe(
      200,
    );
  });
});

describe('resources', () => {
  test('are created from and answered as themselves', async () => {
    const module = { name: 'hello', version: '1.0.0', code: 'def handler(input): return input', timeout: '1.500s' };
    const created = await send('POST', '/modules', JSON.stringify(module));
    expect([created.status, await created.json()]).toEqual([200, module]);
    expect(await (await get('/modules/hello')).json()).toEqual(module);
    expect(await (await get('/modules')).json()).toEqual({ modules: [module] });
    expect(await (await get('/modules/hello/versions')).json()).toEqual({ modules: [module] });
    expect(await errorOf(await send('POST', '/modules', JSON.stringify(module)))).toMatchObject({ status: 409 });
    expect(await (await send('DELETE', '/modules/hello')).json()).toEqual({ deletedVersions: 1 });
    expect(await errorOf(await get('/modules/hello'))).toMatchObject({ status: 404 });
  });

  test('both spellings of a field are taken, unknown ones are refused', async () => {
    const execution = { module: 'echo', input_json: '{}', idempotencyKey: 'k' };
    expect((await send('POST', '/executions', JSON.stringify(execution))).status).toBe(200);
    expect(await errorOf(await send('POST', '/executions', '{"module": "echo", "inptu": {}}'))).toMatchObject({
      status: 400,
      message: 'inptu: unknown field',
    });
    expect(await errorOf(await send('POST', '/modules', '{"nmae": "a"}'))).toMatchObject({
      message: 'module.nmae: unknown field',
    });
    expect(await errorOf(await send('POST', '/executions', '{"module": 3}'))).toMatchObject({
      message: expect.stringContaining('module'),
    });
    expect(await errorOf(await send('POST', '/executions', '{"module": "a", "module": "b"}'))).toMatchObject({
      status: 400,
    });
  });

  test('the rules of the schema hold, with the path of the field', async () => {
    const response = await send(
      'POST',
      '/modules',
      JSON.stringify({ name: '-', version: '1.0.0', code: 'x', limits: { tmpBytes: '-1' } }),
    );
    expect(await errorOf(response)).toMatchObject({
      status: 400,
      message: expect.stringMatching(/module\.name: .*; module\.limits\.tmp_bytes: /),
    });
  });

  test('the path gives the id, the body the rest', async () => {
    const response = await send('POST', `/executions/${EXECUTION_ID}/cancel`, '{"reason": "enough"}');
    expect(await response.json()).toMatchObject({ id: EXECUTION_ID, state: 'CANCELLED', waitingReason: 'enough' });
    expect((await send('POST', `/executions/${EXECUTION_ID}/cancel`)).status).toBe(200);
    expect(await errorOf(await send('POST', '/executions/zz/cancel', '{}'))).toMatchObject({
      message: 'id: must be a valid UUID, got "zz"',
    });
    expect(await errorOf(await send('POST', `/executions/${EXECUTION_ID}/cancel?reason=a`, '{}'))).toMatchObject({
      message: 'reason: unknown query parameter; every field goes into the body',
    });
  });

  test('filters come from the query', async () => {
    const response = await get(
      '/executions?page_size=7&state=FAILED&label_selector=a%3Db&createTimeFrom=2026-01-02T03:04:05Z',
    );
    expect(await response.json()).toEqual({
      executions: [
        {
          id: EXECUTION_ID,
          state: 'FAILED',
          labels: { pageSize: '7', selector: 'a=b' },
          createTime: '2026-01-02T03:04:05Z',
        },
      ],
    });
    expect(await errorOf(await get('/executions?page_size=lots'))).toMatchObject({
      message: expect.stringContaining('page_size'),
    });
    expect(await errorOf(await get('/executions?state=LOST'))).toMatchObject({
      message: expect.stringContaining('state'),
    });
    expect(await errorOf(await get('/executions?page_sise=1'))).toMatchObject({
      message: 'page_sise: unknown query parameter',
    });
  });

  test('an int64 is a string', async () => {
    expect(await (await get(`/executions/${EXECUTION_ID}`)).json()).toMatchObject({ stdoutBytes: '7' });
  });

  test('a literal path wins over a variable', async () => {
    expect(await (await send('POST', '/agents/join-tokens', '{}')).json()).toEqual({ token: 'secret' });
    expect((await get('/agents/join-tokens')).status).toBe(400);
  });

  test('a path with another HTTP method names the ones it takes', async () => {
    const response = await send('PUT', '/executions', '{}');
    expect(response.headers.get('allow')?.split(', ').sort()).toEqual(['GET', 'POST']);
    expect(await errorOf(response)).toMatchObject({ status: 405, code: 'unimplemented' });
  });

  test.each(['/executions/', '/nothing', '/run', '/run/', '/executions/a/b/c', '/run/%zz'])(
    '%s is not found',
    async (path) => {
      expect(await errorOf(await get(path))).toMatchObject({ status: 404, code: 'not_found' });
    },
  );

  test('serves HTTP/2 as well', async () => {
    const session = connectHttp2(server.url);
    const stream = session.request({
      ':path': '/run/echo',
      ':method': 'POST',
      'content-type': 'application/json',
      ...AUTHORIZATION,
    });
    stream.end('{"a":1}');
    const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
    expect(headers[':status']).toBe(200);
    expect(Buffer.concat((await stream.toArray()) as Buffer[]).toString()).toBe('{"a":1}');
    session.close();
  });
});

describe('deadline and disconnect', () => {
  test('the deadline aborts the call', async () => {
    const response = await send('POST', '/run/wait', '{}', { 'connect-timeout-ms': '30' });
    expect(response.headers.get('harrier-execution-id')).toBe(EXECUTION_ID);
    expect(await errorOf(response)).toMatchObject({ status: 504, code: 'deadline_exceeded' });
  });

  test.each(['soon', '-1', '90000000'])('the deadline %j is refused', async (timeout) => {
    expect(await errorOf(await send('POST', '/run/echo', '{}', { 'connect-timeout-ms': timeout }))).toMatchObject({
      status: 400,
    });
  });

  test('a caller that goes away aborts the call', async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<string>();
    const watched = await startApiServer({ services: createSampleServices({ onAborted: resolve }) });
    const controller = new AbortController();
    const following = fetch(`${watched.url}${LOGS}?follow=true`, { headers: AUTHORIZATION, signal: controller.signal });
    await following;
    controller.abort();
    expect(await aborted).toBe('ReadLogs');
    await watched.close();
  });

  test('an HTTP/2 caller that cancels aborts the call', async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<string>();
    const watched = await startApiServer({ services: createSampleServices({ onAborted: resolve }) });
    const session = connectHttp2(watched.url);
    const stream = session.request({ ':path': `${LOGS}?follow=true`, ...AUTHORIZATION });
    await once(stream, 'data');
    stream.close(constants.NGHTTP2_CANCEL);
    expect(await aborted).toBe('ReadLogs');
    session.close();
    await watched.close();
  });
});

describe('logs', () => {
  test('are the bytes themselves', async () => {
    const response = await get(LOGS);
    expect(response.headers.get('content-type')).toBe('text/plain');
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(LOG_BYTES);
  });

  test('start at an offset', async () => {
    const response = await get(`${LOGS}?stdout_offset=3`);
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(LOG_BYTES.slice(3));
    expect(await (await get(`${LOGS}?stdout_offset=7`)).text()).toBe('');
    expect(await errorOf(await get(`${LOGS}?stdout_offset=-1`))).toMatchObject({
      message: expect.stringMatching(/^stdout_offset: /),
    });
  });

  test('arrive while the call goes on', async () => {
    const controller = new AbortController();
    const response = await fetch(`${server.url}${LOGS}?follow=true`, {
      headers: AUTHORIZATION,
      signal: controller.signal,
    });
    const reader = response.body?.getReader();
    let length = 0;
    while (length < LOG_BYTES.length) length += (await reader?.read())?.value?.length ?? 0;
    controller.abort();
  });

  test('a follower of a silent log has its status at once', async () => {
    const controller = new AbortController();
    const url = `${server.url}${LOGS}?follow=true&stdout_offset=7`;
    const response = await fetch(url, { headers: AUTHORIZATION, signal: controller.signal });
    expect(response.status).toBe(200);
    controller.abort();
  });

  test('an error before the first byte has its own status', async () => {
    const unknown = EXECUTION_ID.replace('1', '2');
    expect(await errorOf(await get(`/executions/${unknown}/logs`))).toMatchObject({
      status: 404,
      message: 'id: no such execution',
    });
  });

  test('an error after it breaks the response off', async () => {
    const response = await get(`${LOGS}?attempt=9`);
    expect(response.status).toBe(200);
    await expect(response.arrayBuffer()).rejects.toThrow();
  });

  test('as server-sent events, each with the position after it', async () => {
    const response = await get(LOGS, { accept: 'text/event-stream' });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    expect((await response.text()).split('\n\n')).toEqual([
      'event: log\nid: 1:3:0\ndata: {"stream":"STDOUT","data":"aGkK","attempt":1}',
      'event: log\nid: 1:7:0\ndata: {"stream":"STDOUT","offset":"3","data":"/wD+Cg==","attempt":1}',
      'event: end\ndata: {}',
      '',
    ]);
  });

  test('resume after the last event', async () => {
    const headers = { accept: 'text/event-stream', 'last-event-id': '1:3:0' };
    const text = await (await get(LOGS, headers)).text();
    expect(text).toMatch(/^event: log\nid: 1:7:0\n/);
    expect(await errorOf(await get(LOGS, { ...headers, 'last-event-id': 'x' }))).toMatchObject({
      status: 400,
      message: 'last-event-id: expected <attempt>:<stdout>:<stderr>, got "x"',
    });
  });

  test('an error among events is an event', async () => {
    const text = await (await get(`${LOGS}?attempt=9`, { accept: 'text/event-stream' })).text();
    expect(text).toMatch(/event: error\ndata: {"code":"aborted","message":"log of attempt 9 has a gap"}\n\n$/);
  });
});

describe('watching', () => {
  const WATCH = `/executions/${EXECUTION_ID}/watch`;

  test('is a line of JSON for each event', async () => {
    const response = await get(WATCH);
    expect(response.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = (await response.text())
      .trimEnd()
      .split('\n')
      .map((line) => Object.keys(JSON.parse(line))[0]);
    expect(lines).toEqual(['state', 'log', 'log', 'result']);
  });

  test('is an event named after its kind for EventSource', async () => {
    const text = await (await get(`${WATCH}?stdout_offset=3`, { accept: 'text/event-stream' })).text();
    expect(text.match(/^(event|id): .*$/gm)).toEqual([
      'event: state',
      'event: log',
      'id: 1:7:0',
      'event: result',
      'event: end',
    ]);
  });
});
