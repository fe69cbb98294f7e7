import { globSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionService, Execution_State as State } from '@harrier/shared/gen/execution';
import { beforeAll, expect, test } from 'vitest';
import type { Protocol } from '../support/clients.ts';
import { runProgram } from '../support/program.ts';
import { fixture, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { directory, environment, REPOSITORY } from '../support/workspace.ts';

const MODULE = 'greet';
const INPUT = { name: 'Wörld', n: 41 };
const OUTPUT = '{"greeting":"Hello, W\u00f6rld!","n":42}';
const LOG = 'greeting Wörld\n';
/** Whoever sends it gets the same execution. */
const KEY = 'the-one-execution';

const stack = await startStack();
const { clients, controlPlane } = stack;
let id = '';

beforeAll(async () => {
  await stack.modules.createModule({ module: { name: MODULE, version: '1.0.0', code: fixture('greet.py') } });
  const { execution } = await stack.executions.execute({ ...moduleCall(MODULE, INPUT), idempotencyKey: KEY });
  id = execution?.id ?? '';
  expect(execution).toMatchObject({ state: State.SUCCEEDED, outputJson: OUTPUT, stdoutTail: LOG, attempt: 1 });
});

async function run(argv: [string, ...string[]]): Promise<string> {
  const { code, stdout, stderr } = await runProgram({ argv, env: environment(), cwd: REPOSITORY });
  expect(code, stderr).toBe(0);
  return stdout;
}

test('a Python client with grpcio and stubs generated from proto/', async () => {
  const python = join(REPOSITORY, '.venv', 'bin', 'python');
  const stubs = directory('stubs');
  const include = ['-I', 'proto', '-I', 'proto/vendor'];
  const files = [
    ...globSync('harrier/v1/*.proto', { cwd: join(REPOSITORY, 'proto') }),
    ...globSync('{google,buf}/**/*.proto', { cwd: join(REPOSITORY, 'proto/vendor') }),
  ];
  await run([
    ...([python, '-m', 'grpc_tools.protoc', ...include] as [string, ...string[]]),
    ...[`--python_out=${stubs}`, `--grpc_python_out=${stubs}`, ...files],
  ]);
  const script = join(REPOSITORY, 'test/fixtures/python_client.py');
  const address = new URL(controlPlane.url).host;
  const answer = await run([python, script, address, clients.apiKey, stubs, MODULE, JSON.stringify(INPUT), KEY]);
  expect(JSON.parse(answer)).toEqual({ id, state: 'SUCCEEDED', outputJson: OUTPUT, log: LOG });
});

test('grpcurl, by reflection', async () => {
  const host = new URL(controlPlane.url).host;
  const request = JSON.stringify({ module: MODULE, input_json: JSON.stringify(INPUT), idempotency_key: KEY });
  const header = `authorization: Bearer ${clients.apiKey}`;
  const flags: [string, ...string[]] = ['grpcurl', '-plaintext', '-max-time', '30', '-H', header];
  expect(await run([...flags, host, 'list'])).toContain('harrier.v1.ExecutionService');
  const answer = await run([...flags, '-d', request, host, 'harrier.v1.ExecutionService/Execute']);
  expect(JSON.parse(answer).execution).toMatchObject({ id, state: 'SUCCEEDED', outputJson: OUTPUT, stdoutTail: LOG });
});

test('curl with Connect JSON', async () => {
  const body = { module: MODULE, inputJson: JSON.stringify(INPUT), idempotencyKey: KEY };
  const answer = await run([
    ...(['curl', '-sS', '-m', '30', '-H', `Authorization: Bearer ${clients.apiKey}`] as [string, ...string[]]),
    ...['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)],
    `${controlPlane.url}/harrier.v1.ExecutionService/Execute`,
  ]);
  expect(JSON.parse(answer).execution).toMatchObject({ id, state: 'SUCCEEDED', outputJson: OUTPUT, stdoutTail: LOG });
});

test.each([`/run/${MODULE}`, `/modules/execute/${MODULE}`])('curl with REST: %s', async (path) => {
  const answer = await run([
    ...(['curl', '-sS', '-i', '-m', '30', '-H', `Authorization: Bearer ${clients.apiKey}`] as [string, ...string[]]),
    ...['-H', 'Content-Type: application/json', '-d', JSON.stringify(INPUT)],
    `${controlPlane.url}${path}?idempotency_key=${KEY}`,
  ]);
  const [head = '', body] = answer.split('\r\n\r\n');
  expect(head).toMatch(/^HTTP\/1\.1 200 /);
  expect(head.toLowerCase()).toContain(`harrier-execution-id: ${id}`);
  expect(body).toBe(OUTPUT);
});

test.each<Protocol>(['gRPC', 'gRPC-Web', 'Connect binary', 'Connect JSON'])(
  'a TypeScript client with %s',
  async (protocol) => {
    const client = clients.client(ExecutionService, protocol);
    const { execution } = await client.execute({ ...moduleCall(MODULE, INPUT), idempotencyKey: KEY });
    expect(execution).toMatchObject({ id, state: State.SUCCEEDED, outputJson: OUTPUT, stdoutTail: LOG });
    const { execution: seen } = await client.getExecution({ id, includeInput: true });
    expect(seen).toMatchObject({
      outputJson: OUTPUT,
      inputJson: JSON.stringify(INPUT),
      module: MODULE,
      version: '1.0.0',
    });
    const chunks: Uint8Array[] = [];
    for await (const { chunk } of client.readLogs({ id })) chunks.push(chunk?.data ?? new Uint8Array());
    expect(Buffer.concat(chunks).toString()).toBe(LOG);
  },
);

test('all of them were one execution', async () => {
  const { executions } = await stack.executions.listExecutions({});
  expect(executions.map((execution) => execution.id)).toEqual([id]);
});
