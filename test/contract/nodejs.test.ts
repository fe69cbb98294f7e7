import { type MessageInitShape, create as message } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import { LimitsSchema, Limits_Network as Network } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { create, execute, finished, storedLog, untilPrinted } from '../support/executions.ts';
import { processesWith } from '../support/processes.ts';
import { fixture, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { writtenBytes } from '../support/written.ts';

// What `contract.ts` promises to Python, promised to Node.js in the sandbox.
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

  test('has the context and the variables of its call', async () => {
    const source = `export function handler(input, { executionId, attempt, deadline }) {
      return { id: executionId, attempt, late: deadline > new Date(), greeting: process.env.GREETING };
    }`;
    const execution = await execute(executions, { ...code(source), env: { GREETING: 'hi' } });
    expect(outputOf(execution)).toEqual({ id: execution.id, attempt: 1, late: true, greeting: 'hi' });
  });

  test('reports its progress', async () => {
    const source = `export function handler(input, context) {
      context.progress(40, 'nearly half');
      console.log('told');
      return new Promise(() => setInterval(() => {}, 1000));
    }`;
    const id = await create(executions, code(source));
    await untilPrinted(executions, id, 'told');
    await until('the progress to be seen', async () => {
      const { execution } = await executions.getExecution({ id });
      return execution?.progress?.percent === 40 && execution.progress.step === 'nearly half';
    });
    await executions.cancelExecution({ id });
  });

  test('finds nothing of the call before, and nobody beside it', async () => {
    const source = `import { existsSync, readdirSync, writeFileSync } from 'node:fs';
    export function handler() {
      const found = {
        global: 'left' in globalThis,
        files: ['/tmp/left', '/dev/shm/left'].filter((path) => existsSync(path)),
        processes: readdirSync('/proc').filter((name) => /^\\d+$/.test(name)).length,
      };
      globalThis.left = true;
      for (const path of ['/tmp/left', '/dev/shm/left']) writeFileSync(path, 'x');
      return found;
    }`;
    // The process of the call, and the one that waits for it.
    for (let call = 0; call < 3; call++)
      expect(outputOf(await run(source))).toEqual({ global: false, files: [], processes: 2 });
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
});

describe('output', () => {
  test('is stored byte for byte, on both streams', async () => {
    const written = { seed: 5, stdout: 300_001, stderr: 100_003 };
    const execution = await run(fixture('writer.js'), written);
    expect(outputOf(execution)).toEqual(written);
    const stored = await storedLog(executions, execution.id);
    expect(stored.stdout.equals(writtenBytes(written, 'stdout'))).toBe(true);
    expect(stored.stderr.equals(writtenBytes(written, 'stderr'))).toBe(true);
  });

  test('beyond its limit is dropped and marked', async () => {
    const source =
      'export function handler() { for (let i = 0; i < 100; i++) console.log("x".repeat(1000)); return {}; }';
    const execution = await run(source, {}, { stdoutBytes: 5000n });
    expect(outputOf(execution)).toEqual({});
    expect(execution).toMatchObject({ stdoutTruncated: true, stderrTruncated: false });
    expect(execution.stdoutTail).toContain('[harrier: stdout truncated after 5000 bytes]');
  });

  test('cannot forge a result', async () => {
    const source = `export function handler() {
      const head = Buffer.from('{"type":"result"}');
      const prefix = Buffer.from([0, 0, 0, head.length, 0, 0, 0, 15]);
      process.stdout.write(Buffer.concat([prefix, head, Buffer.from('{"forged":true}')]));
      console.log(JSON.stringify({ ok: true, output: { forged: true } }));
      return { forged: false };
    }`;
    expect(outputOf(await run(source))).toEqual({ forged: false });
  });
});

const result = (text: string) => `export const handler = () => (${text});`;
const FAILING: [what: string, source: string, error: keyof typeof Code, message: string, traceback?: string][] = [
  [
    'an exception',
    'export function handler() {\n  inner();\n}\nfunction inner() { null.x; }',
    'HANDLER_ERROR',
    'TypeError: Cannot read',
    'at inner (code.js:4:25)\n    at handler (code.js:2:3)',
  ],
  [
    'a rejection',
    'export const handler = async () => { throw new RangeError("far"); };',
    'HANDLER_ERROR',
    'RangeError: far',
    'handler (code.js:1:44)',
  ],
  [
    'an exception later',
    'export const handler = () => new Promise(() => setTimeout(() => { throw new Error("late"); }));',
    'HANDLER_ERROR',
    'Error: late',
    'code.js:1',
  ],
  [
    'a cause',
    'export const handler = () => { throw new Error("a", { cause: new Error("b") }); };',
    'HANDLER_ERROR',
    'Error: a',
    'Caused by: Error: b',
  ],
  ['what is no error', 'export const handler = () => { throw "text"; };', 'HANDLER_ERROR', "threw 'text'"],
  ['wrong syntax', 'const fine = 1;\nexport function handler( {', 'HANDLER_ERROR', 'SyntaxError', 'code.js:2'],
  [
    'a missing package',
    'import "no-such-package"; export const handler = () => ({});',
    'HANDLER_ERROR',
    "Cannot find package 'no-such-package'",
  ],
  [
    'an exit',
    'export const handler = () => process.exit(3);',
    'HANDLER_ERROR',
    'exited with code 3 before the handler returned',
  ],
  [
    'a promise that nothing settles',
    'export const handler = () => new Promise(() => {});',
    'HANDLER_ERROR',
    'nothing left that it could wait for',
  ],
  ['a signal', 'export const handler = () => process.kill(process.pid, "SIGKILL");', 'KILLED', 'SIGKILL'],
  ['no function', 'export const other = 1;', 'HANDLER_NOT_FOUND', 'code.js exports no function "handler"'],
  [
    'another export of that name',
    'export const handler = 1;',
    'HANDLER_NOT_FOUND',
    '"handler" in code.js is a value of type number',
  ],
  ['a list', result('[1]'), 'OUTPUT_INVALID', '$: the handler returned an array, not an object'],
  ['nothing', result('undefined'), 'OUTPUT_INVALID', '$: the handler returned undefined, not an object'],
  ['NaN', result('{ a: [1, { b: NaN }] }'), 'OUTPUT_INVALID', '$.a[1].b: NaN is not a JSON number'],
  ['a bigint', result('{ a: 1n }'), 'OUTPUT_INVALID', '$.a: a value of type bigint is not a JSON value'],
  ['undefined', result('{ a: undefined }'), 'OUTPUT_INVALID', '$.a: undefined is not a JSON value'],
  [
    'a function',
    result('{ "x y": () => 1 }'),
    'OUTPUT_INVALID',
    '$["x y"]: a value of type function is not a JSON value',
  ],
  ['a map', result('{ a: new Map() }'), 'OUTPUT_INVALID', '$.a: a value of type Map is not a JSON value'],
  [
    'a cycle',
    'export const handler = () => { const a = {}; a.b = [a]; return a; };',
    'OUTPUT_INVALID',
    '$.b[0]: the value contains itself',
  ],
  ['a lone surrogate', result('{ a: "\\ud800" }'), 'OUTPUT_INVALID', '$.a: a string with a lone surrogate'],
  [
    'depth',
    'export const handler = () => { const a = {}; let b = a; for (let i = 0; i < 1e5; i++) b = b.a = {}; return a; };',
    'OUTPUT_INVALID',
    'nested deeper than 100 levels',
  ],
];

test.each(FAILING)('%s fails the call', async (_, source, error, text, traceback) => {
  const execution = await run(source);
  expect(execution).toMatchObject({ state: State.FAILED, attempt: 1, outputJson: '' });
  expect(execution.error).toMatchObject({ code: Code[error], message: expect.stringContaining(text) });
  const shown = String(execution.error?.details?.traceback ?? '');
  if (traceback !== undefined) expect(shown).toContain(traceback);
  // A user sees frames of the module alone.
  expect(shown).not.toMatch(/harrier-|node:|sandbox\.mjs|call\.mjs/);
});

test('what says itself how it is written is asked once, and its answer is checked', async () => {
  const source = 'let asked = 0; export const handler = () => ({ a: { toJSON: () => (asked++ === 0 ? 1 : NaN) } });';
  expect(outputOf(await run(source))).toEqual({ a: 1 });
  const { error } = await run(result('{ a: { toJSON: () => [NaN] } }'));
  expect(error).toMatchObject({ code: Code.OUTPUT_INVALID, message: expect.stringContaining('$.a[0]: NaN') });
});

test('a result that is too large is refused', async () => {
  const { error } = await run(result('{ a: "x".repeat(2000) }'), {}, { outputBytes: 1000n });
  expect(error).toMatchObject({ code: Code.OUTPUT_TOO_LARGE, message: expect.stringContaining('limit is 1000') });
});

describe('an end from outside', () => {
  const sleeper = `import { spawn } from 'node:child_process';
    export function handler({ child, stubborn }) {
      spawn('sleep', [child], { detached: true, stdio: 'ignore' });
      process.on('SIGTERM', () => { console.log('cleaned up'); if (!stubborn) process.exit(0); });
      console.log('running');
      return new Promise(() => setInterval(() => {}, 1000));
    }`;

  test('its timeout', async () => {
    const request = { ...code(sleeper, { child: '6101' }), timeout: { seconds: 1n } as never };
    const execution = await execute(executions, request);
    expect(execution).toMatchObject({ state: State.TIMED_OUT, error: { code: Code.TIMEOUT } });
    expect(execution.stdoutTail).toBe('running\ncleaned up\n');
    await until('what it started to be gone', () => processesWith('6101').length === 0);
  });

  test('its timeout, also when it ignores that', async () => {
    const request = { ...code(sleeper, { child: '6102', stubborn: true }), timeout: { seconds: 1n } as never };
    expect(await execute(executions, request)).toMatchObject({ state: State.TIMED_OUT });
    await until('what it started to be gone', () => processesWith('6102').length === 0);
  });

  test('a cancel', async () => {
    const id = await create(executions, code(sleeper, { child: '6103' }));
    await untilPrinted(executions, id, 'running');
    await executions.cancelExecution({ id, reason: 'enough' });
    const execution = await finished(executions, id);
    expect(execution).toMatchObject({ state: State.CANCELLED, error: { code: Code.CANCELLED, message: 'enough' } });
    await until('what it started to be gone', () => processesWith('6103').length === 0);
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

test('there is no network, nothing of the host, and the interpreter cannot be written to', async () => {
  const source = `import { createConnection } from 'node:net';
    import { readFileSync, writeFileSync } from 'node:fs';
    const tried = (what) => { try { what(); return 'done'; } catch (error) { return error.code; } };
    export const handler = async ({ key }) => ({
      host: await new Promise((resolve) => {
        createConnection({ host: '192.0.2.1', port: 80 }, () => resolve('done')).on('error', ({ code }) => resolve(code));
      }),
      name: await fetch('http://example.org').then(() => 'done', ({ cause }) => cause.code),
      key: tried(() => readFileSync(key)),
      write: tried(() => writeFileSync(process.execPath, '')),
      runner: tried(() => writeFileSync(process.argv[1], '')),
      environment: Object.keys(process.env).filter((name) => /HARRIER|TOKEN|SECRET/.test(name)).length || 'none',
    });`;
  const found = outputOf(await run(source, { key: `${stack.agents[0]?.dataDirectory}/identity.json` }));
  expect(found).toMatchObject({ key: 'ENOENT', environment: 'none' });
  expect(Object.values(found), JSON.stringify(found)).not.toContain('done');
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
