import { type MessageInitShape, create as message } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import { LimitsSchema, Limits_Network as Network } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { execute } from '../support/executions.ts';
import { moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';
import { nodejsCode } from './subjects.ts';

const stack = await startStack();
const { executions } = stack;
const MIB = 1024 * 1024;
type LimitsInit = MessageInitShape<typeof LimitsSchema>;

const code = (source: string, input: object = {}, limits: LimitsInit = {}) => ({
  target: { case: 'code' as const, value: { source, language: 'nodejs' } },
  inputForm: { case: 'inputJson' as const, value: JSON.stringify(input) },
  limits: message(LimitsSchema, limits),
});
const run = async (source: string, input: object = {}, limits: LimitsInit = {}) =>
  await execute(executions, code(source, input, limits));
const outputOf = (execution: Execution) => {
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  return JSON.parse(execution.outputJson);
};

test('the agent says that it has it', async () => {
  const { agents } = await stack.clients.agents.listAgents({});
  expect(agents[0]?.environments).toContain('nodejs');
});

describe('a function', () => {
  test.each([
    ['an ES module', 'export function handler(input) { return { got: input }; }'],
    ['CommonJS', 'exports.handler = (input) => ({ got: input });'],
    ['named as in images', 'export const executeFunction = async (input) => ({ got: input });'],
  ])('gets its input and gives its output: %s', async (_, source) => {
    const input = { text: 'ä\u0000"\\ 🦅', numbers: [0, -1.5, 1e300, 2 ** 53], deep: { a: [null, true, {}] } };
    expect(outputOf(await run(source, input))).toEqual({ got: input });
  });

  test('is that which the module names', async () => {
    const source = 'export const double = ({ n }) => ({ n: 2 * n });';
    const module = { name: 'double', version: '1.0.0', language: 'nodejs', handler: 'double', code: source };
    await stack.modules.createModule({ module });
    expect(outputOf(await execute(executions, moduleCall('double', { n: 21 })))).toEqual({ n: 42 });
  });

  test('runs threads and WebAssembly within a limit of memory', async () => {
    const source = `import { Worker } from 'node:worker_threads';
    export const handler = () => new Promise((resolve, reject) => {
      const memory = new WebAssembly.Memory({ initial: 1, maximum: 1000 });
      const worker = new Worker("require('node:worker_threads').parentPort.postMessage(7)", { eval: true });
      worker.on('error', reject).on('message', (n) => resolve({ n, bytes: memory.buffer.byteLength }));
    });`;
    const { agents } = await stack.clients.agents.listAgents({});
    const wide = agents[0]?.isolation?.cgroupLimits.includes('memory') ? 128 : 1024;
    expect(outputOf(await run(source, {}, { memoryBytes: BigInt(wide * MIB) }))).toEqual({ n: 7, bytes: 65_536 });
  });
  test.each([
    ['in the heap', 'const held = []; for (;;) held.push({ x: Math.random(), y: [1] });'],
    ['in buffers', 'const held = []; for (;;) held.push(Buffer.alloc(16 << 20, 1));'],
  ])('its memory limit: %s', async (_, statement) => {
    const execution = await run(`export function handler() { ${statement} }`, {}, { memoryBytes: BigInt(64 * MIB) });
    expect(execution).toMatchObject({ state: State.FAILED, error: { code: Code.OUT_OF_MEMORY } });
    expect((await run(result('{ alive: true }'), {}, { memoryBytes: BigInt(16 * MIB) })).outputJson).toBe(
      '{"alive":true}',
    );
  });
});

const result = (text: string) => `export const handler = () => (${text});`;

test('what says itself how it is written is asked once, and its answer is checked', async () => {
  const source = 'let asked = 0; export const handler = () => ({ a: { toJSON: () => (asked++ === 0 ? 1 : NaN) } });';
  expect(outputOf(await run(source))).toEqual({ a: 1 });
  const { error } = await run(result('{ a: { toJSON: () => [NaN] } }'));
  expect(error).toMatchObject({ code: Code.OUTPUT_INVALID, message: expect.stringContaining('$.a[0]: NaN') });
});

test('with a network it reaches what its call may, by the clients of Node.js itself', async () => {
  const source = `import { get } from 'node:https';
    const fetched = (url) => fetch(url).then(({ status }) => status, ({ cause }) => String(cause));
    export const handler = async ({ index, other }) => ({
      fetch: await fetched(index),
      https: await new Promise((resolve, reject) => get(index, ({ statusCode }) => resolve(statusCode)).on('error', reject)),
      other: await fetched(other),
    });`;
  const input = { index: 'https://pypi.org/simple/six/', other: 'https://example.org/' };
  const found = outputOf(await run(source, input, { network: Network.INDEX }));
  expect(found).toEqual({ fetch: 200, https: 200, other: expect.stringContaining('Error') });
});

testContract(stack, nodejsCode());
