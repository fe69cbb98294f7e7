import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { FAILING_CODE } from '../fixtures/handler-errors.ts';
import { execute, storedLog } from '../support/executions.ts';
import { code, command, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';

const stack = await startStack();
const { clients, executions } = stack;

/** Names of the runtime's own files: a user must not see them. */
const RUNTIME_FILES = /handler_host|zygote|worker\.py|agent\/runtime/;

test.each(FAILING_CODE)('$what: $error', async ({ code: source, error, message, details = {}, limits, exitCode }) => {
  const execution = await execute(executions, { ...code(source), ...(limits && { limits }) });
  const wanted = message instanceof RegExp ? expect.stringMatching(message) : message;
  expect(execution).toMatchObject({ state: State.FAILED, attempt: 1, error: { message: wanted } });
  expect(Object.entries(Code).find(([, value]) => value === execution.error?.code)?.[0]).toBe(error);
  for (const [name, value] of Object.entries(details)) {
    expect(execution.error?.details?.[name]).toEqual(value instanceof RegExp ? expect.stringMatching(value) : value);
  }
  expect(String(execution.error?.details?.traceback)).not.toMatch(RUNTIME_FILES);
  expect(execution.exitCode).toBe(exitCode);
  expect(execution.outputJson).toBe('');
});

test('what was printed before an exception is kept', async () => {
  const execution = await execute(
    executions,
    code('def handler(input):\n    print("before")\n    raise ValueError("x")\n'),
  );
  expect(execution).toMatchObject({ state: State.FAILED, stdoutTail: 'before\n' });
});

test.each([
  ['an unknown program', ['no-such-program'], 'EXIT_NONZERO', 127, "'no-such-program': not found"],
  ['a file that is no program', ['/etc/passwd'], 'EXIT_NONZERO', 126, 'Permission denied'],
  ['an exit code', ['sh', '-c', 'exit 42'], 'EXIT_NONZERO', 42, '42'],
  ['a signal', ['sh', '-c', 'kill -6 $$'], 'KILLED', undefined, 'SIGABRT'],
] as const)('a command: %s', async (_, argv, error, exitCode, message) => {
  const execution = await execute(executions, command(...argv));
  expect(execution).toMatchObject({
    state: State.FAILED,
    error: { code: Code[error], message: expect.stringContaining(message) },
  });
  expect(execution.exitCode).toBe(exitCode);
});

test('a command that ends well has exit code 0', async () => {
  expect(await execute(executions, command('true'))).toMatchObject({ state: State.SUCCEEDED, exitCode: 0 });
});

test('REST answers the error object with the status of its code', async () => {
  await stack.modules.createModule({
    module: { name: 'broken', version: '1.0.0', code: 'def handler(input):\n    raise ValueError("no")\n' },
  });
  const answer = await clients.rest('POST', '/run/broken', {});
  expect(answer.status).toBe(500);
  expect(answer.json).toMatchObject({
    code: 'HANDLER_ERROR',
    message: 'ValueError: no',
    details: { type: 'ValueError' },
  });
  expect(answer.json.details.traceback).toContain('File "broken-1.0.0.py", line 2, in handler');
  expect(answer.headers['harrier-execution-id']).toMatch(/^[0-9a-f-]{36}$/);
  expect((await execute(executions, moduleCall('broken'))).state).toBe(State.FAILED);
});

test('output beyond its limit is dropped and marked, and the execution goes on', async () => {
  const source = `
import sys
def handler(input):
    for _ in range(100):
        sys.stdout.write("0123456789")
    sys.stderr.write("all of it")
    return {"wrote": 1000}
`;
  const execution = await execute(executions, { ...code(source), limits: { stdoutBytes: 95n } });
  const marker = '\n[harrier: stdout truncated after 95 bytes]\n';
  const wanted = '0123456789'.repeat(10).slice(0, 95) + marker;
  expect(execution).toMatchObject({
    state: State.SUCCEEDED,
    outputJson: '{"wrote":1000}',
    stdoutTruncated: true,
    stderrTruncated: false,
    stdoutBytes: BigInt(wanted.length),
    stdoutTail: wanted,
  });
  const { stdout, stderr } = await storedLog(executions, execution.id);
  expect([stdout.toString(), stderr.toString()]).toEqual([wanted, 'all of it']);
});

test('what is printed cannot pass for a result', async () => {
  const source =
    'def handler(input):\n    print(\'{"ok":true,"output":{"forged":true}}\')\n    return {"real": True}\n';
  expect(await execute(executions, code(source))).toMatchObject({ outputJson: '{"real":true}' });
});

test('a handler with a context knows its execution and reports progress', async () => {
  const source = `
async def handler(input, context):
    context.progress(25, "quarter")
    context.progress(75.5, "most")
    return {"id": context.execution_id, "attempt": context.attempt}
`;
  let progress: unknown;
  for await (const { event } of executions.executeStream(code(source))) {
    if (event.case === 'progress') progress = event.value;
    if (event.case !== 'result') continue;
    expect(event.value.outputJson).toBe(JSON.stringify({ id: event.value.id, attempt: 1 }));
  }
  expect(progress).toMatchObject({ percent: 75.5, step: 'most' });
});

test('numbers and texts come back as the handler wrote them', async () => {
  const source =
    'def handler(input):\n    return {"n": 2**80, "f": 1.0, "e": input["e"], "s": "\\u00e9\\u0000", "z": -0.0}\n';
  const { outputJson } = await execute(executions, {
    ...code(source),
    inputForm: { case: 'inputJson', value: '{"e": 1e2}' },
  });
  expect(outputJson).toContain('1208925819614629174706176');
  expect(JSON.parse(outputJson)).toEqual({ n: 2 ** 80, f: 1, e: 100, s: '\u00e9\0', z: -0 });
});
