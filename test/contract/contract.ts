import type { MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import type { LimitsSchema } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { create, execute, finished, storedLog, untilPrinted } from '../support/executions.ts';
import { processesWith } from '../support/processes.ts';
import type { Stack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { writtenBytes } from '../support/written.ts';
import { HANDLERS } from './handlers.ts';
import type { PromiseName, Subject } from './subjects.ts';

/** Names of the runtime's own files: a user must not see them. */
const RUNTIME_FILES = /handler_host|zygote|worker\.py|agent\/runtime|harrier[-/]|node:|sandbox\.mjs|call\.mjs/;
const MIB = 1024 * 1024;

/**
 * What everything that runs code promises, whatever it is made of: the same handler, the same output, the same ends. What a
 * subject does not promise stands in its table, with the reason. One call of an environment that is built must have been
 * made before, so that none of these waits for its build.
 */
export function testContract(stack: Stack, subject: Subject): void {
  const { executions } = stack;
  const promises = (name: PromiseName, tests: () => void) => {
    if (subject.without[name] === undefined) describe(name, tests);
  };
  const asJob = subject.slurm ? { slurm: { time: { seconds: 600n } } as never } : {};
  const code = (source: string, input: object = {}) => ({
    target: subject.target(source),
    ...asJob,
    inputForm: { case: 'inputJson' as const, value: JSON.stringify(input) },
  });
  const command = (...argv: string[]) => ({
    target: {
      case: 'command' as const,
      value: { argv, ...(subject.environment && { environment: subject.environment }) },
    },
    ...asJob,
  });
  const handler = (name: keyof typeof HANDLERS, input: object = {}) => code(HANDLERS[name][subject.language], input);
  const limited = (limits?: MessageInitShape<typeof LimitsSchema>) => (limits ? { limits: limits as never } : {});
  const outputOf = async (execution: Execution) => {
    expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
    return await subject.answer(execution, stack);
  };
  const logOf = (execution: Execution) => (subject.log === 'stdout' ? execution.stdoutTail : execution.stderrTail);

  promises('input', () => {
    test('comes, and output goes, byte for byte as JSON says it', async () => {
      const input = { text: 'ä\u0000"\\ 🦅', numbers: [0, -1.5, 1e300, 2 ** 53], deep: { a: [null, true, {}] } };
      expect(await outputOf(await execute(executions, handler('echo', input)))).toEqual({ got: input });
    });
  });

  promises('context', () => {
    test('tells of the call', async () => {
      const execution = await execute(executions, handler('context'));
      expect(await outputOf(execution)).toEqual({ id: execution.id, attempt: 1, late: true });
    });
  });

  promises('async', () => {
    test('a handler may be asynchronous', async () => {
      expect(await outputOf(await execute(executions, handler('async')))).toEqual({ sum: 3 });
    });
  });

  promises('variables', () => {
    test('are those of the call', async () => {
      const execution = await execute(executions, { ...handler('variables'), env: { GREETING: 'hi' } });
      expect(await outputOf(execution)).toEqual({ greeting: 'hi' });
    });
  });

  promises('progress', () => {
    test('is seen while it runs', async () => {
      const id = await create(executions, handler('progress'));
      await untilPrinted(executions, id, 'told');
      await until('the progress to be seen', async () => {
        const { execution } = await executions.getExecution({ id });
        return execution?.progress?.percent === 40 && execution.progress.step === 'nearly half';
      });
      await executions.cancelExecution({ id });
    });
  });

  promises('fresh', () => {
    test('nothing of the call before is there, and nobody beside it', async () => {
      for (let call = 0; call < 3; call++) {
        const found = await outputOf(await execute(executions, handler('leftovers')));
        expect(found).toEqual({ global: false, files: [], others: subject.others });
      }
    });
  });

  promises('output', () => {
    test('is stored byte for byte, on both streams', async () => {
      const written = { seed: 5, stdout: 300_001, stderr: 100_003 };
      const execution = await execute(executions, handler('writer', written));
      expect(await outputOf(execution)).toEqual(written);
      const stored = await storedLog(executions, execution.id);
      expect(stored.stdout.equals(writtenBytes(written, 'stdout'))).toBe(true);
      expect(stored.stderr.equals(writtenBytes(written, 'stderr'))).toBe(true);
    });
  });

  promises('truncation', () => {
    test('output beyond its limit is dropped and marked', async () => {
      const [cut, other] = subject.log === 'stdout' ? ['stdout', 'stderr'] : ['stderr', 'stdout'];
      const execution = await execute(executions, {
        ...handler('lines'),
        ...limited({ [`${cut}Bytes`]: 5000n } as never),
      });
      expect(await outputOf(execution)).toEqual({});
      expect(execution).toMatchObject({ [`${cut}Truncated`]: true, [`${other}Truncated`]: false });
      expect(logOf(execution)).toContain(`[harrier: ${cut} truncated after 5000 bytes]`);
    });
  });

  promises('forgery', () => {
    test('what is printed is no result', async () => {
      expect(await outputOf(await execute(executions, handler('forger')))).toEqual({ forged: false });
    });
  });

  promises('failures', () => {
    test.each(subject.failing)('$what: $error', async (row) => {
      const execution = await execute(executions, { ...code(row.code), ...limited(row.limits) });
      const matching = (value: unknown) => (value instanceof RegExp ? expect.stringMatching(value) : value);
      expect(execution).toMatchObject({ state: State.FAILED, attempt: 1, error: { message: matching(row.message) } });
      expect(Object.entries(Code).find(([, value]) => value === execution.error?.code)?.[0]).toBe(row.error);
      for (const [name, value] of Object.entries(row.details ?? {})) {
        expect(execution.error?.details?.[name]).toEqual(matching(value));
      }
      expect(String(execution.error?.details?.traceback)).not.toMatch(RUNTIME_FILES);
      expect(execution.exitCode).toBe(row.exitCode);
      expect(execution.outputJson).toBe('');
    });
  });

  promises('timeout', () => {
    test('ends it and all that it has started, also when it ignores the signal', async () => {
      for (const stubborn of [false, true]) {
        const request = { ...handler('sleeper', { child: '6001', stubborn }), timeout: { seconds: 1n } as never };
        const execution = await execute(executions, request);
        expect(execution).toMatchObject({ state: State.TIMED_OUT, error: { code: Code.TIMEOUT } });
        expect(logOf(execution)).toMatch(/^running\n/);
        await until('what it started to be gone', () => processesWith('6001').length === 0);
      }
    });
  });

  promises('cancel', () => {
    test('ends it and all that it has started', async () => {
      const id = await create(executions, handler('sleeper', { child: '6002', stubborn: false }));
      await untilPrinted(executions, id, 'running');
      await executions.cancelExecution({ id, reason: 'enough' });
      const execution = await finished(executions, id);
      expect(execution).toMatchObject({ state: State.CANCELLED, error: { code: Code.CANCELLED, message: 'enough' } });
      await until('what it started to be gone', () => processesWith('6002').length === 0);
    });
  });

  promises('memory', () => {
    test('beyond its limit ends the call', async () => {
      const execution = await execute(executions, {
        ...handler('hungry'),
        ...limited({ memoryBytes: BigInt(64 * MIB) }),
      });
      expect(execution.state).toBe(State.FAILED);
      expect(subject.outOfMemory.map((name) => Code[name])).toContain(execution.error?.code);
    });
  });

  promises('command', () => {
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

  promises('confinement', () => {
    test('there is no network, and neither interpreter nor environment can be written to', async () => {
      const found = (await outputOf(await execute(executions, handler('outside')))) as object;
      expect(Object.values(found), JSON.stringify(found)).not.toContain('done');
    });
  });
}
