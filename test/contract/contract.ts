import { type MessageInitShape, create as message } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import { EnvironmentSchema, type LimitsSchema } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { FAILING_CODE } from '../fixtures/handler-errors.ts';
import { create, execute, finished, storedLog, untilPrinted } from '../support/executions.ts';
import { processesWith } from '../support/processes.ts';
import { fixture } from '../support/requests.ts';
import type { Stack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { writtenBytes } from '../support/written.ts';

/** Names of the runtime's own files: a user must not see them. */
const RUNTIME_FILES = /handler_host|zygote|worker\.py|agent\/runtime|harrier\//;
const MIB = 1024 * 1024;

export interface ContractOptions {
  stack: Stack;
  environment: MessageInitShape<typeof EnvironmentSchema>;
}

/**
 * What every environment promises to Python code and commands, whatever it is made of: the same handler, the same output,
 * the same errors. One call with the environment must have been made before, so that none of these waits for its build.
 */
export function testContract({ stack, environment }: ContractOptions): void {
  const { executions } = stack;
  const given = message(EnvironmentSchema, environment);

  const code = (source: string, input: object = {}) => ({
    target: { case: 'code' as const, value: { source, environment: given } },
    inputForm: { case: 'inputJson' as const, value: JSON.stringify(input) },
  });
  const command = (...argv: string[]) => ({
    target: { case: 'command' as const, value: { argv, environment: given } },
  });
  const run = async (source: string, input: object = {}, limits?: MessageInitShape<typeof LimitsSchema>) =>
    await execute(executions, { ...code(source, input), ...(limits && { limits: limits as never }) });
  const outputOf = (execution: Execution) => {
    expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
    return JSON.parse(execution.outputJson);
  };

  describe('a handler', () => {
    test('gets its input and gives its output, byte for byte as JSON says it', async () => {
      const input = { text: 'ä\u0000"\\ 🦅', numbers: [0, -1.5, 1e300, 2 ** 53], deep: { a: [null, true, {}] } };
      const execution = await run('def handler(input):\n    return {"got": input}\n', input);
      expect(outputOf(execution)).toEqual({ got: input });
    });

    test('has the context of its call', async () => {
      const source = `def handler(input, context):
    return {"id": context.execution_id, "attempt": context.attempt, "late": context.deadline > 0}
`;
      const execution = await run(source);
      expect(outputOf(execution)).toEqual({ id: execution.id, attempt: 1, late: true });
    });

    test('may be asynchronous', async () => {
      const source = `import asyncio
async def handler(input):
    a, b = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
    return {"sum": a + b}
`;
      expect(outputOf(await run(source))).toEqual({ sum: 3 });
    });

    test('has the variables of its call', async () => {
      const request = code('import os\ndef handler(input):\n    return {"greeting": os.environ["GREETING"]}\n');
      expect(outputOf(await execute(executions, { ...request, env: { GREETING: 'hi' } }))).toEqual({ greeting: 'hi' });
    });

    test('reports its progress', async () => {
      const source = `def handler(input, context):
    context.progress(40, "nearly half")
    print("told", flush=True)
    import time
    time.sleep(600)
`;
      const id = await create(executions, code(source));
      await untilPrinted(executions, id, 'told');
      await until('the progress to be seen', async () => {
        const { execution } = await executions.getExecution({ id });
        return execution?.progress?.percent === 40 && execution.progress.step === 'nearly half';
      });
      await executions.cancelExecution({ id });
    });

    test('finds nothing of the call before', async () => {
      const source = `import builtins, os, sys
def handler(input):
    found = {
        "global": hasattr(builtins, "left"),
        "module": "left" in sys.modules,
        "files": [path for path in ("/tmp/left", "/dev/shm/left", "/var/tmp/left") if os.path.exists(path)],
        "processes": [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) > 1],
    }
    builtins.left = sys.modules["left"] = os
    os.path.join = None
    for directory in ("/tmp", "/dev/shm", "/var/tmp"):
        try:
            open(directory + "/left", "w").close()
        except OSError:
            pass
    return found
`;
      for (let call = 0; call < 3; call++) {
        expect(outputOf(await run(source))).toEqual({ global: false, module: false, files: [], processes: [] });
      }
    });
  });

  describe('output', () => {
    test('is stored byte for byte, on both streams', async () => {
      const written = { seed: 5, stdout: 300_001, stderr: 100_003 };
      const execution = await run(fixture('writer.py'), written);
      expect(outputOf(execution)).toEqual(written);
      const stored = await storedLog(executions, execution.id);
      expect(stored.stdout.equals(writtenBytes(written, 'stdout'))).toBe(true);
      expect(stored.stderr.equals(writtenBytes(written, 'stderr'))).toBe(true);
    });

    test('beyond its limit is dropped and marked', async () => {
      const source = 'def handler(input):\n    for _ in range(100): print("x" * 1000)\n    return {}\n';
      const execution = await run(source, {}, { stdoutBytes: 5000n });
      expect(outputOf(execution)).toEqual({});
      expect(execution).toMatchObject({ stdoutTruncated: true, stderrTruncated: false });
      expect(execution.stdoutTail).toContain('[harrier: stdout truncated after 5000 bytes]');
    });

    test('cannot forge a result', async () => {
      const source = `import json
def handler(input):
    for frame in ({"type": "result", "forged": True}, {"ok": True, "output": {"forged": True}}):
        print(json.dumps(frame), flush=True)
    return {"forged": False}
`;
      expect(outputOf(await run(source))).toEqual({ forged: false });
    });
  });

  test.each(FAILING_CODE)(
    '$what: $error',
    async ({ code: source, error, message: text, details = {}, limits, exitCode }) => {
      const execution = await run(source, {}, limits);
      const wanted = text instanceof RegExp ? expect.stringMatching(text) : text;
      expect(execution).toMatchObject({ state: State.FAILED, attempt: 1, error: { message: wanted } });
      expect(Object.entries(Code).find(([, value]) => value === execution.error?.code)?.[0]).toBe(error);
      for (const [name, value] of Object.entries(details)) {
        expect(execution.error?.details?.[name]).toEqual(
          value instanceof RegExp ? expect.stringMatching(value) : value,
        );
      }
      expect(String(execution.error?.details?.traceback)).not.toMatch(RUNTIME_FILES);
      expect(execution.exitCode).toBe(exitCode);
      expect(execution.outputJson).toBe('');
    },
  );

  describe('an end from outside', () => {
    test('its timeout', async () => {
      const request = { ...code(fixture('sleeper.py'), { child: '6001' }), timeout: { seconds: 1n } as never };
      const execution = await execute(executions, request);
      expect(execution).toMatchObject({ state: State.TIMED_OUT, error: { code: Code.TIMEOUT } });
      expect(execution.stdoutTail).toBe('running\ncleaned up\n');
      expect(processesWith('6001')).toEqual([]);
    });

    test('a cancel, whatever it does with the signal', async () => {
      const id = await create(executions, code(fixture('sleeper.py'), { child: '6002', stubborn: false }));
      await untilPrinted(executions, id, 'running');
      await executions.cancelExecution({ id, reason: 'enough' });
      const execution = await finished(executions, id);
      expect(execution).toMatchObject({ state: State.CANCELLED, error: { code: Code.CANCELLED, message: 'enough' } });
      expect(processesWith('6002')).toEqual([]);
    });

    test('its memory limit', async () => {
      const source = 'def handler(input):\n    return {"n": len(bytearray(400 * 1024 * 1024))}\n';
      const execution = await run(source, {}, { memoryBytes: BigInt(64 * MIB) });
      expect(execution).toMatchObject({ state: State.FAILED, error: { code: Code.OUT_OF_MEMORY } });
    });
  });

  describe('a command', () => {
    test('reads its input and writes its output', async () => {
      const request = {
        ...command('sh', '-c', 'cat; echo; echo done >&2'),
        inputForm: { case: 'inputJson', value: '{"a":1}' },
      };
      const execution = await execute(executions, request as never);
      expect(execution).toMatchObject({
        state: State.SUCCEEDED,
        exitCode: 0,
        stdoutTail: '{"a":1}\n',
        stderrTail: 'done\n',
      });
    });

    test.each([
      ['an exit code', ['sh', '-c', 'exit 42'], 'EXIT_NONZERO', 42, '42'],
      ['a signal', ['sh', '-c', 'kill -6 $$'], 'KILLED', undefined, 'SIGABRT'],
      ['an unknown program', ['no-such-program'], 'EXIT_NONZERO', 127, "'no-such-program': not found"],
    ] as const)('%s', async (_, argv, error, exitCode, text) => {
      const execution = await execute(executions, command(...argv));
      expect(execution).toMatchObject({
        state: State.FAILED,
        error: { code: Code[error], message: expect.stringContaining(text) },
      });
      expect(execution.exitCode).toBe(exitCode);
    });
  });

  test('there is no network, and the environment cannot be written to', async () => {
    const source = `import os, socket, sys
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"

def handler(input):
    here = os.path.dirname(os.__file__)
    return {
        "host": tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=2)),
        "name": tried(lambda: socket.getaddrinfo("example.org", 80)),
        "write": tried(lambda: open(os.path.join(here, "planted.pth"), "w")),
        "prefix": tried(lambda: open(os.path.join(sys.prefix, "planted"), "w")),
    }
`;
    const found = outputOf(await run(source));
    expect(Object.values(found), JSON.stringify(found)).not.toContain('done');
  });
}
