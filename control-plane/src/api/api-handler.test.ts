import { gzipSync } from 'node:zlib';
import { fromBinary, type JsonObject } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { ViolationsSchema } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node';
import { AgentService } from '@harrier/shared/gen/agent';
import { type Execution_State, ExecutionService } from '@harrier/shared/gen/execution';
import { Health, HealthCheckResponse_ServingStatus as Status } from '@harrier/shared/gen/grpc/health/v1/health';
import { ServerReflection } from '@harrier/shared/gen/grpc/reflection/v1/reflection';
import { ServerReflection as ServerReflectionV1Alpha } from '@harrier/shared/gen/grpc/reflection/v1alpha/reflection';
import { ModuleService } from '@harrier/shared/gen/module';
import { Access_Role } from '@harrier/shared/gen/options';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, startApiServer } from './test-support/api-server.ts';
import { as, collect, grpcClient, TRANSPORTS } from './test-support/clients.ts';
import { exchange } from './test-support/raw-connection.ts';
import { createSampleServices, EXECUTION_ID, LOG_BYTES } from './test-support/sample-services.ts';

let server: ApiServer;
beforeAll(async () => {
  server = await startApiServer();
});
afterAll(() => server.close());

const DEVELOPER = as('developer');

async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ConnectError);
  return error as ConnectError;
}

function postJson(path: string, body: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(server.url + path, {
    method: 'POST',
    body,
    headers: { ...DEVELOPER.headers, 'content-type': 'application/json', ...headers },
  });
}

describe.each(TRANSPORTS)('%s', (_name, createTransport) => {
  test('carries a unary call', async () => {
    const client = createClient(ExecutionService, createTransport(server.url));
    const input: JsonObject = { a: [1, null] };
    const { execution } = await client.execute(
      { target: { case: 'module', value: 'echo' }, inputForm: { case: 'input', value: input } },
      DEVELOPER,
    );
    expect(execution).toMatchObject({ id: EXECUTION_ID, module: 'echo', output: { a: [1, null] } });
  });

  test('carries a read-only call', async () => {
    const client = createClient(ExecutionService, createTransport(server.url));
    const { execution } = await client.getExecution({ id: EXECUTION_ID }, as('viewer'));
    expect(execution).toMatchObject({ id: EXECUTION_ID, stdoutBytes: 7n });
  });

  test('carries JSON text byte for byte', async () => {
    const client = createClient(ExecutionService, createTransport(server.url));
    const inputJson = '{ "a" : 1.0, "é": "\\u0000" }';
    const { execution } = await client.execute(
      { target: { case: 'module', value: 'echo' }, inputForm: { case: 'inputJson', value: inputJson } },
      DEVELOPER,
    );
    expect(execution?.outputJson).toBe(inputJson);
  });

  test('carries a stream', async () => {
    const client = createClient(ExecutionService, createTransport(server.url));
    const responses = await collect(client.readLogs({ id: EXECUTION_ID }, as('viewer')));
    expect(Buffer.concat(responses.map(({ chunk }) => chunk?.data ?? Buffer.alloc(0)))).toEqual(Buffer.from(LOG_BYTES));
  });

  test('tells the error of a unary call and of a stream', async () => {
    const client = createClient(ExecutionService, createTransport(server.url));
    const missing = await failure(client.execute({ target: { case: 'module', value: 'missing' } }, DEVELOPER));
    expect(missing).toMatchObject({ code: Code.NotFound, rawMessage: 'module: no module has the name "missing"' });
    const gap = await failure(collect(client.readLogs({ id: EXECUTION_ID, attempt: 9 }, DEVELOPER)));
    expect(gap).toMatchObject({ code: Code.Aborted, rawMessage: 'log of attempt 9 has a gap' });
  });
});

describe('bad requests are refused with the name of the field', () => {
  test('rules of the schema', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const error = await failure(client.listExecutions({ pageSize: 5_000, state: 99 as Execution_State }, DEVELOPER));
    expect(error.code).toBe(Code.InvalidArgument);
    expect(error.rawMessage).toBe(
      'page_size: must be greater than or equal to 0 and less than or equal to 1000, got 5000; state: value must be one of the defined enum values, got 99',
    );
    const [detail] = error.findDetails(ViolationsSchema);
    expect(detail?.violations.map(({ field }) => field?.elements[0]?.fieldName)).toEqual(['page_size', 'state']);
  });

  test('a nested field, a map key and a missing choice', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const nested = {
      target: { case: 'module', value: 'echo' },
      limits: { memoryBytes: -1n },
      labels: { '!': 'a' },
    } as const;
    const { rawMessage } = await failure(client.execute(nested, DEVELOPER));
    expect(rawMessage).toContain('limits.memory_bytes: ');
    expect(rawMessage).toContain('key of labels["!"]: ');
    expect((await failure(client.execute({}, DEVELOPER))).rawMessage).toBe(
      'target: exactly one field is required in oneof',
    );
  });

  test('a flood of violations makes a short message', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const labels = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`!${i}`, 'a']));
    const error = await failure(client.execute({ target: { case: 'module', value: 'echo' }, labels }, DEVELOPER));
    expect(error.rawMessage).toMatch(/; and 50 more$/);
  });

  test.each([
    ['{"modul": "echo"}', 'modul: unknown field'],
    ['{"module": 3}', 'module: expected string, got 3'],
    ['{"module": "echo", "module": "echo"}', 'module'],
    ['{"module": "echo", "code": {"source": "x"}}', 'target'],
    ['{"module": "echo", "timeout": "soon"}', 'timeout: not a google.protobuf.Duration: "soon"'],
    [
      '{"module": "echo", "retryPolicy": {"codes": ["TIMEOUT", "X"]}}',
      'retry_policy.codes[1]: not a harrier.v1.ExecutionError.Code: "X"',
    ],
    ['{"module": "echo", "limits": {"cpus": 3}}', 'limits.cpus: unknown field'],
    ['{"module": "echo", "labels": {"a": 3}}', 'labels["a"]: expected string, got 3'],
    ['{"module": ', 'body: malformed JSON at line 1, column 12: the text ends where a value was expected'],
    ['[]', 'body: expected a JSON object, got an array'],
  ])('Connect JSON %s', async (body, message) => {
    const response = await postJson('/harrier.v1.ExecutionService/Execute', body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      code: 'invalid_argument',
      message: expect.stringContaining(message),
    });
  });

  test('nesting too deep for protobuf', async () => {
    const input = `${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}`;
    const response = await postJson('/harrier.v1.ExecutionService/Execute', `{"module":"echo","input":${input}}`);
    expect(response.status).toBe(400);
    expect(await response.text()).toContain('body: JSON nests deeper than 100 levels');
  });

  const many = (count: number, item: (i: number) => string) => Array.from({ length: count }, (_, i) => item(i)).join();

  test.each([
    ['labels', `"labels":{${many(200_001, (i) => `"${i}":""`)}}`],
    ['items of an input', `"input":{"a":[${many(200_001, () => '1')}]}`],
    ['unknown fields', many(200_001, (i) => `"k${i}":0`)],
    ['arrays in arrays', `"input":{"a":[${many(5_000, () => `${'['.repeat(40)}${']'.repeat(40)}`)}]}`],
    ['what is not even JSON', `"input":{"a":[${many(200_001, () => '1')}`],
  ])('more %s than a message is made of', async (_, fields) => {
    const refusal = { code: 'invalid_argument', message: expect.stringContaining('body: more than 200000 values') };
    const response = await postJson('/harrier.v1.ExecutionService/Execute', `{"module":"echo",${fields}}`);
    expect(await response.json()).toMatchObject(refusal);
    const { url: baseUrl } = server;
    for (const path of ['/executions', '/harrier.v1.ExecutionService/CreateExecution']) {
      for (const [encoding, pack] of [
        ['identity', (text: string) => text],
        ['gzip', gzipSync],
      ] as const) {
        const headers = { ...DEVELOPER.headers, 'content-type': 'application/json', 'content-encoding': encoding };
        const body = pack(`{"module":"echo",${fields}}`);
        if (path === '/executions' && encoding === 'gzip') continue;
        const answer = await fetch(baseUrl + path, { method: 'POST', body, headers });
        expect(await answer.json()).toMatchObject(refusal);
      }
    }
  });

  test.each(TRANSPORTS)(
    'more labels and items than a message is made of, of a stream and of a call by %s',
    async (_, create) => {
      const client = createClient(ExecutionService, create(server.url));
      const argv = Array.from({ length: 400_001 }, () => '');
      const request = { target: { case: 'command', value: { argv } } } as const;
      const expected = { code: Code.InvalidArgument, rawMessage: expect.stringMatching(/^body: more than [24]00000 /) };
      expect(await failure(collect(client.executeStream(request, DEVELOPER)))).toMatchObject(expected);
      expect(await failure(client.execute(request, DEVELOPER))).toMatchObject(expected);
    },
  );

  test('an input as the body itself with too many members', async () => {
    const response = await postJson('/run/echo', `{${many(200_001, (i) => `"${i}":1`)}}`);
    expect(response.status).toBe(400);
    expect(await response.text()).toContain('body: more than 200000 objects, arrays and members');
    const numbers = `{"a":[${many(1_000_000, () => '1')}]}`;
    expect(await (await postJson('/run/echo', numbers)).text()).toBe(numbers);
  });

  test('of a list or a map that is too long only how long it is, whatever is in it', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const labels = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`!${i}`, 'a']));
    const module = { case: 'module', value: 'echo' } as const;
    expect((await failure(client.execute({ target: module, labels }, DEVELOPER))).rawMessage).toBe(
      'labels: must have at most 64 items, not 65',
    );
    const requirements = Array.from({ length: 1001 }, () => '');
    const environment = { kind: { case: 'venv', value: { requirements } } } as const;
    const code = { case: 'code', value: { source: 'x', environment } } as const;
    expect((await failure(client.execute({ target: code }, DEVELOPER))).rawMessage).toBe(
      'code.environment.venv.requirements: must have at most 1000 items, not 1001',
    );
  });

  test('a body that is too large', async () => {
    const large = `{"module":"echo","inputJson":"${'x'.repeat(8 * 1024 * 1024)}"}`;
    const response = await postJson('/harrier.v1.ExecutionService/Execute', large);
    expect(response.status).toBe(429);
    expect(await response.json()).toMatchObject({ code: 'resource_exhausted' });
    const client = grpcClient(ExecutionService, server.url);
    const request = {
      target: { case: 'module', value: 'echo' },
      inputForm: { case: 'inputJson', value: large },
    } as const;
    expect((await failure(client.execute(request, DEVELOPER))).code).toBe(Code.ResourceExhausted);
  });

  test('the largest body is taken', async () => {
    const inputJson = JSON.stringify({ a: 'x'.repeat(8 * 1024 * 1024 - 100) });
    const client = grpcClient(ExecutionService, server.url);
    const request = {
      target: { case: 'module', value: 'echo' },
      inputForm: { case: 'inputJson', value: inputJson },
    } as const;
    const { execution } = await client.execute(request, DEVELOPER);
    expect(execution?.outputJson === inputJson).toBe(true);
  });

  test('a deadline of more than a day', async () => {
    const client = createClient(ExecutionService, createConnectTransport({ baseUrl: server.url, httpVersion: '1.1' }));
    const options = { ...DEVELOPER, timeoutMs: 25 * 3_600_000 };
    const error = await failure(client.execute({ target: { case: 'module', value: 'echo' } }, options));
    expect(error).toMatchObject({ code: Code.InvalidArgument, rawMessage: 'timeout 90000000ms must be <= 86400000' });
  });

  test('the wrong HTTP method and content type', async () => {
    const wrongMethod = await fetch(`${server.url}/harrier.v1.ExecutionService/Execute`, {
      headers: DEVELOPER.headers,
    });
    expect([wrongMethod.status, wrongMethod.headers.get('allow')]).toEqual([405, 'POST']);
    expect(await wrongMethod.json()).toMatchObject({ code: 'unimplemented' });
    const wrongType = await postJson('/harrier.v1.ExecutionService/Execute', '{}', { 'content-type': 'text/xml' });
    expect(wrongType.status).toBe(415);
    expect(await wrongType.text()).toContain('text/xml');
  });

  test('what was sent is told, but not what may be secret', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const long = 'x'.repeat(200_000);
    const module = { case: 'module', value: 'echo' } as const;
    const told = async (asked: object) =>
      (await failure(client.execute({ target: module, ...asked }, DEVELOPER))).rawMessage;
    expect((await failure(client.getExecution({ id: 'mine' }, DEVELOPER))).rawMessage).toBe(
      'id: must be a valid UUID, got "mine"',
    );
    expect(await told({ timeout: { seconds: -1n, nanos: -500_000_000 } })).toMatch(/^timeout: .*, got -1.5s$/);
    expect(await told({ limits: { memoryBytes: -7n } })).toMatch(/^limits.memory_bytes: .*, got -7$/);
    expect(await told({ version: long })).toMatch(/^version: .*, got "x{100}…"$/);
    expect(await told({ labels: { a: '!' } })).toMatch(/^labels\["a"\]: .*, got "!"$/);
    expect(await told({ env: { TOKEN: long } })).toMatch(/^env\["TOKEN"\]: [^,]*$/);
    const argv = { case: 'command', value: { argv: [long] } } as const;
    expect(await told({ target: argv })).toMatch(/^command.argv\[0\]: [^,]*$/);
  });

  test.each<[object, string]>([
    [
      { timeout: { seconds: 1n, nanos: -5 } },
      'timeout: seconds and nanos must have the same sign: seconds 1 and nanos -5',
    ],
    [{ timeout: { nanos: 1_000_000_000 } }, 'timeout: nanos must be from -999999999 to 999999999'],
    [{ timeout: { seconds: 10n ** 15n } }, 'timeout: longer than 10,000 years'],
    [
      { retryPolicy: { maxBackoff: { seconds: -1n, nanos: 5 } } },
      'retry_policy.max_backoff: seconds and nanos must have the same sign',
    ],
    [{ target: { case: 'command', value: { argv: [''] } } }, 'command.argv: the program, argv[0], cannot be empty'],
    [{ target: { case: 'image', value: { image: 'a', argv: ['', 'b'] } } }, 'image.argv: the program, argv[0]'],
    ...['1.2.3.4:99999', 'a:0', 'a..b', 'a:65536'].map((host): [object, string] => [
      { limits: { egressHosts: [host] } },
      'limits.egress_hosts[0]: does not match',
    ]),
  ])('an execution with %o', async (asked, message) => {
    const client = grpcClient(ExecutionService, server.url);
    const error = await failure(client.execute({ target: { case: 'module', value: 'echo' }, ...asked }, DEVELOPER));
    expect(error).toMatchObject({ code: Code.InvalidArgument, rawMessage: expect.stringContaining(message) });
  });

  test.each([
    [{ seconds: 10n ** 15n }, 'not a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z'],
    [{ seconds: -62_135_596_801n }, 'not a time from 0001-01-01T00:00:00Z'],
    [{ seconds: 1n, nanos: -5 }, 'nanos must be from 0 to 999999999'],
  ])('the time %o', async (createTimeFrom, message) => {
    const client = grpcClient(ExecutionService, server.url);
    const error = await failure(client.listExecutions({ createTimeFrom }, DEVELOPER));
    expect(error.code).toBe(Code.InvalidArgument);
    expect(error.rawMessage).toContain(`create_time_from: ${message}`);
  });

  test.each(TRANSPORTS.filter(([name]) => name.startsWith('gRPC')))(
    '%s: a method that there is not',
    async (_, create) => {
      const { methods, ...service } = ExecutionService;
      const [execute] = methods;
      for (const [typeName, name] of [
        ['harrier.v1.ExecutionService', 'Nothing'],
        ['x.Y', 'Z'],
      ] as const) {
        const parent = { ...service, typeName };
        const method = { ...execute, name, parent } as unknown as typeof ExecutionService.method.execute;
        const call = create(server.url).unary(method, undefined, undefined, DEVELOPER.headers, {});
        expect(await failure(call)).toMatchObject({
          code: Code.Unimplemented,
          rawMessage: `there is no method /${typeName}/${name}`,
        });
      }
    },
  );

  test('an unknown method of a known service', async () => {
    const response = await postJson('/harrier.v1.ExecutionService/Nothing', '{}');
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ code: 'not_found' });
  });

  test.each(['', 'Host:\r\n', 'Host: a b\r\n', 'Host: [::\r\n', 'Host: %00\r\n'])(
    'the header %j does no harm',
    async (host) => {
      const body = '{"module":"echo","inputJson":"{}"}';
      const head = `Authorization: Bearer developer\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${body.length}`;
      const answer = await exchange(
        server.port,
        `POST /harrier.v1.ExecutionService/Execute HTTP/1.1\r\n${host}${head}\r\n\r\n${body}`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 (200|400) /);
      expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    },
  );

  test.each(['//', '/?', '/harrier.v1.ExecutionService/Execute?%', '/run/%', '*', 'http://[/x', '/\\'])(
    'the target %s does no harm',
    async (target) => {
      const answer = await exchange(
        server.port,
        `POST ${target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /);
    },
  );
});

describe('access', () => {
  test('without a credential nothing is told', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const error = await failure(client.listExecutions({}));
    expect(error).toMatchObject({ code: Code.Unauthenticated, rawMessage: 'no valid credential was given' });
    const response = await fetch(`${server.url}/harrier.v1.ExecutionService/Execute`, {
      method: 'POST',
      body: 'not even JSON',
      headers: { 'content-type': 'application/json' },
    });
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
  });

  test('a role that is too low is told which one it needs', async () => {
    const client = grpcClient(ModuleService, server.url);
    const error = await failure(client.deleteModule({ name: 'a' }, as('viewer')));
    expect(error.code).toBe(Code.PermissionDenied);
    expect(error.rawMessage).toBe('DeleteModule needs the role DEVELOPER; this credential has VIEWER');
  });

  test('a role that is higher will do', async () => {
    const client = grpcClient(AgentService, server.url);
    expect((await client.listAgents({}, as('operator'))).agents).toEqual([]);
    expect((await failure(client.createJoinToken({}, DEVELOPER))).code).toBe(Code.PermissionDenied);
  });

  test('every method of every service declares a role that somebody must have', async () => {
    const nobody = await startApiServer({
      authenticate: async () => ({ tenantId: 't', keyId: 'k', role: Access_Role.ROLE_UNSPECIFIED }),
    });
    for (const service of [ExecutionService, ModuleService, AgentService]) {
      for (const { name, methodKind } of service.methods) {
        const contentType = methodKind === 'unary' ? 'application/json' : 'application/connect+json';
        const url = `${nobody.url}/${service.typeName}/${name}`;
        const response = await fetch(url, { method: 'POST', body: '{}', headers: { 'content-type': contentType } });
        expect(await response.text(), name).toMatch(
          /needs the role (VIEWER|DEVELOPER|OPERATOR|ADMIN); this credential has/,
        );
      }
    }
    await nobody.close();
  });

  test('the service learns who calls', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const { execution } = await client.createExecution({ target: { case: 'module', value: 'a' } }, DEVELOPER);
    expect(execution?.labels).toEqual({ keyId: 'key-of-Bearer developer' });
  });

  test('a defect of the check itself lets nobody in and is not told', async () => {
    const broken = await startApiServer({ authenticate: () => Promise.reject(new Error('database password wrong')) });
    const error = await failure(grpcClient(ExecutionService, broken.url).listExecutions({}, DEVELOPER));
    expect(error).toMatchObject({ code: Code.Internal, rawMessage: 'internal error' });
    await broken.close();
  });
});

describe('what a service throws', () => {
  test('unknown errors are logged and not told', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const error = await failure(client.execute({ target: { case: 'module', value: 'crash' } }, DEVELOPER));
    expect(error).toMatchObject({ code: Code.Internal, rawMessage: 'internal error' });
    const logged = server.logs.findLast(({ msg }) => msg === 'call failed unexpectedly');
    expect(logged).toMatchObject({
      method: 'harrier.v1.ExecutionService/Execute',
      err: { message: 'password=hunter2' },
    });
  });

  test('the field of an error is a detail', async () => {
    const client = grpcClient(ExecutionService, server.url);
    const error = await failure(client.execute({ target: { case: 'module', value: 'missing' } }, DEVELOPER));
    const [violations] = error.findDetails(ViolationsSchema);
    expect(violations?.violations[0]).toMatchObject({ field: { elements: [{ fieldName: 'module' }] } });
  });
});

describe('the signal of a call', () => {
  /** A server whose `wait` module tells when and why its call was aborted. */
  async function startWaiting(options: { shutdownSignal?: AbortSignal } = {}) {
    const { promise: aborted, resolve } = Promise.withResolvers<unknown>();
    const { promise: started, resolve: onStarted } = Promise.withResolvers<void>();
    const services = createSampleServices({ onAborted: (_method, reason) => resolve(reason) });
    const { execute } = services.execution;
    services.execution.execute = (request, context) => {
      onStarted();
      return execute(request, context);
    };
    return { aborted, started, waiting: await startApiServer({ services, ...options }) };
  }
  const WAIT = { target: { case: 'module', value: 'wait' } } as const;

  test.each(TRANSPORTS)('aborts when the caller goes away: %s', async (_name, createTransport) => {
    const { aborted, started, waiting } = await startWaiting();
    const controller = new AbortController();
    const client = createClient(ExecutionService, createTransport(waiting.url));
    const call = failure(client.execute(WAIT, { ...DEVELOPER, signal: controller.signal }));
    await started;
    controller.abort();
    expect((await call).code).toBe(Code.Canceled);
    expect(await aborted).toMatchObject({ code: Code.Canceled });
    await waiting.close();
  });

  test('aborts when the deadline passes', async () => {
    const { aborted, waiting } = await startWaiting();
    const client = createClient(ExecutionService, createGrpcTransport({ baseUrl: waiting.url }));
    // Long enough for the call to arrive on a busy machine: one that does not is aborted by nobody.
    const error = await failure(client.execute(WAIT, { ...DEVELOPER, timeoutMs: 2_000 }));
    expect(error.code).toBe(Code.DeadlineExceeded);
    expect(await aborted).toBeInstanceOf(ConnectError);
    await waiting.close();
  });

  test('many calls at once listen for the stop of the process without a warning', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning);
    process.on('warning', onWarning);
    const shutdown = new AbortController();
    const { waiting } = await startWaiting({ shutdownSignal: shutdown.signal });
    const client = grpcClient(ExecutionService, waiting.url);
    const calls = Array.from({ length: 64 }, () => failure(client.execute(WAIT, { ...DEVELOPER, timeoutMs: 50 })));
    const codes = new Set((await Promise.all(calls)).map(({ code }) => code));
    expect([...codes]).toEqual([Code.DeadlineExceeded]);
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
    await waiting.close();
  });

  test('aborts when the process stops', async () => {
    const shutdown = new AbortController();
    const { started, waiting } = await startWaiting({ shutdownSignal: shutdown.signal });
    const client = grpcClient(ExecutionService, waiting.url);
    const call = failure(client.execute(WAIT, DEVELOPER));
    await started;
    shutdown.abort(new ConnectError('the server stops', Code.Unavailable));
    expect(await call).toMatchObject({ code: Code.Unavailable, rawMessage: 'the server stops' });
    expect((await fetch(`${waiting.url}/readyz`)).status).toBe(503);
    await waiting.close();
  });
});

describe('observation', () => {
  test('each call is told once with its code', async () => {
    const observed = await startApiServer();
    const client = grpcClient(ExecutionService, observed.url);
    await client.getExecution({ id: EXECUTION_ID }, DEVELOPER);
    await failure(client.getExecution({ id: 'x' }, DEVELOPER));
    await failure(client.getExecution({ id: EXECUTION_ID }));
    await failure(client.execute({ target: { case: 'module', value: 'crash' } }, DEVELOPER));
    await collect(client.readLogs({ id: EXECUTION_ID }, DEVELOPER));
    await failure(collect(client.readLogs({ id: EXECUTION_ID, attempt: 9 }, DEVELOPER)));
    await fetch(`${observed.url}/executions/${EXECUTION_ID}`, DEVELOPER);
    await fetch(`${observed.url}/executions?page_sise=3`, DEVELOPER);
    await fetch(`${observed.url}/run/echo`, { ...DEVELOPER, method: 'POST', body: 'text' });
    expect(observed.calls).toEqual([
      { method: 'harrier.v1.ExecutionService/GetExecution', code: 'ok' },
      { method: 'harrier.v1.ExecutionService/GetExecution', code: 'invalid_argument' },
      { method: 'harrier.v1.ExecutionService/GetExecution', code: 'unauthenticated' },
      { method: 'harrier.v1.ExecutionService/Execute', code: 'internal' },
      { method: 'harrier.v1.ExecutionService/ReadLogs', code: 'ok' },
      { method: 'harrier.v1.ExecutionService/ReadLogs', code: 'aborted' },
      { method: 'harrier.v1.ExecutionService/GetExecution', code: 'ok' },
      { method: 'harrier.v1.ExecutionService/ListExecutions', code: 'invalid_argument' },
      { method: 'harrier.v1.ExecutionService/Execute', code: 'unimplemented' },
    ]);
    await observed.close();
  });
});

describe('probes', () => {
  test('/healthz and /readyz need no credential', async () => {
    const healthz = await fetch(`${server.url}/healthz`);
    expect([healthz.status, await healthz.json()]).toEqual([200, { status: 'SERVING' }]);
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
  });

  test('/readyz says no while calls cannot be served, also when the check fails', async () => {
    for (const ready of [async () => false, () => Promise.reject(new Error('no database'))]) {
      const unready = await startApiServer({ ready });
      expect((await fetch(`${unready.url}/readyz`)).status).toBe(503);
      expect((await fetch(`${unready.url}/healthz`)).status).toBe(200);
      const health = grpcClient(Health, unready.url);
      expect((await health.check({})).status).toBe(Status.NOT_SERVING);
      await unready.close();
    }
  });
});

describe('gRPC health', () => {
  test('checks and lists without a credential', async () => {
    const health = grpcClient(Health, server.url);
    expect((await health.check({})).status).toBe(Status.SERVING);
    expect((await health.check({ service: 'harrier.v1.ExecutionService' })).status).toBe(Status.SERVING);
    expect((await failure(health.check({ service: 'no.Such' }))).code).toBe(Code.NotFound);
    expect(Object.keys((await health.list({})).statuses)).toContain('harrier.v1.ModuleService');
  });

  test('watches', async () => {
    const controller = new AbortController();
    const health = grpcClient(Health, server.url);
    const known = health.watch({}, { signal: controller.signal })[Symbol.asyncIterator]();
    expect(await known.next()).toMatchObject({ value: { status: Status.SERVING } });
    const unknown = health.watch({ service: 'no.Such' }, { signal: controller.signal })[Symbol.asyncIterator]();
    expect(await unknown.next()).toMatchObject({ value: { status: Status.SERVICE_UNKNOWN } });
    controller.abort();
    expect((await failure(known.next())).code).toBe(Code.Canceled);
  });
});

describe.each([
  ['v1', ServerReflection],
  ['v1alpha', ServerReflectionV1Alpha as unknown as typeof ServerReflection],
])('gRPC reflection %s', (_version, service) => {
  type Question =
    Parameters<ReturnType<typeof grpcClient<typeof ServerReflection>>['serverReflectionInfo']>[0] extends AsyncIterable<
      infer Q
    >
      ? Q
      : never;

  async function ask(...questions: Question[]) {
    async function* all() {
      yield* questions;
    }
    return collect(grpcClient(service, server.url).serverReflectionInfo(all(), as('viewer')));
  }

  test('lists the services', async () => {
    const [answer] = await ask({ messageRequest: { case: 'listServices', value: '' } });
    const names = answer?.messageResponse.case === 'listServicesResponse' ? answer.messageResponse.value.service : [];
    expect(names.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        'harrier.v1.ExecutionService',
        'grpc.health.v1.Health',
        'grpc.reflection.v1.ServerReflection',
      ]),
    );
  });

  test.each([
    ['fileContainingSymbol', 'harrier.v1.ExecutionService.Execute'],
    ['fileContainingSymbol', 'harrier.v1.Execution.State'],
    ['fileByFilename', 'harrier/v1/execution.proto'],
  ] as const)('%s %s answers the file with its imports', async (kind, value) => {
    const [answer] = await ask({ messageRequest: { case: kind, value } });
    const bytes =
      answer?.messageResponse.case === 'fileDescriptorResponse' ? answer.messageResponse.value.fileDescriptorProto : [];
    const files = bytes.map((each) => fromBinary(FileDescriptorProtoSchema, each).name);
    expect(files[0]).toBe('harrier/v1/execution.proto');
    expect(files).toEqual(expect.arrayContaining(['google/api/http.proto', 'google/protobuf/descriptor.proto']));
  });

  test('finds extensions, and says what it does not know', async () => {
    const [numbers, option, unknown] = await ask(
      { messageRequest: { case: 'allExtensionNumbersOfType', value: 'google.protobuf.MethodOptions' } },
      {
        messageRequest: {
          case: 'fileContainingExtension',
          value: { containingType: 'google.protobuf.MethodOptions', extensionNumber: 50100 },
        },
      },
      { messageRequest: { case: 'fileContainingSymbol', value: 'no.Such' } },
    );
    expect(numbers?.messageResponse).toMatchObject({
      value: { extensionNumber: expect.arrayContaining([72295728, 50100]) },
    });
    expect(option?.messageResponse.case).toBe('fileDescriptorResponse');
    expect(unknown?.messageResponse).toMatchObject({ case: 'errorResponse', value: { errorCode: Code.NotFound } });
  });

  test('needs a credential', async () => {
    async function* nothing() {}
    const error = await failure(collect(grpcClient(service, server.url).serverReflectionInfo(nothing())));
    expect(error.code).toBe(Code.Unauthenticated);
  });
});

test('paths that are not the API are left to the fallback', async () => {
  const docs = await startApiServer({ fallback: (_request, response) => void response.end('docs') });
  expect(await (await fetch(`${docs.url}/docs`)).text()).toBe('docs');
  expect((await fetch(`${docs.url}/executions`)).status).toBe(401);
  await docs.close();
});
