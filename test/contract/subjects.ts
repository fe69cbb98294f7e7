import { type MessageInitShape, create as message } from '@bufbuild/protobuf';
import type { Execution } from '@harrier/shared/gen/execution';
import { type Environment, EnvironmentSchema } from '@harrier/shared/gen/module';
import { FAILING_CODE, type FailingCode } from '../fixtures/handler-errors.ts';
import { FAILING_NODEJS } from '../fixtures/handler-errors-nodejs.ts';
import { storedLog } from '../support/executions.ts';
import type { Stack } from '../support/stack.ts';

/** What the contract promises; each is one test of `contract.ts`, or several. */
export type PromiseName =
  | 'input'
  | 'context'
  | 'async'
  | 'variables'
  | 'progress'
  | 'fresh'
  | 'output'
  | 'truncation'
  | 'forgery'
  | 'failures'
  | 'timeout'
  | 'cancel'
  | 'memory'
  | 'command'
  | 'confinement';

type Target =
  | { case: 'code'; value: { source: string; language?: string; environment?: Environment } }
  | { case: 'command'; value: { argv: string[]; environment?: Environment } }
  | { case: 'image'; value: { image: string; argv: string[] } };

/** Something that runs what callers bring. */
export interface Subject {
  /** Of the handlers of `handlers.ts`, those that it runs. */
  language: 'python' | 'nodejs';
  /** How it runs the source of a handler. */
  target: (source: string) => Target;
  /** What a handler that has succeeded has returned. */
  answer: (execution: Execution, stack: Stack) => Promise<unknown>;
  /** The stream that handlers print to. */
  log: 'stdout' | 'stderr';
  /** How many processes a handler sees beside the first. */
  others: number;
  /** The codes that memory beyond the limit may end with: what runs out of it may say so by itself. */
  outOfMemory: readonly ('OUT_OF_MEMORY' | 'EXIT_NONZERO')[];
  /** Code that does not succeed, in its language. */
  failing: readonly FailingCode[];
  /** Where commands run as well. */
  environment?: Environment;
  /** Whatever it runs is a job of Slurm. */
  slurm?: true;
  /** What it does not promise, each with the reason. */
  without: Partial<Record<PromiseName, string>>;
}

const answerOf = async (execution: Execution) => JSON.parse(execution.outputJson);
const NOT_HANDLED = 'a program is called once, with its input on standard input: there is nobody to give it a context';

/** Python code in an environment. */
export function pythonCode(given: MessageInitShape<typeof EnvironmentSchema>): Subject {
  const environment = message(EnvironmentSchema, given);
  return {
    language: 'python',
    target: (source) => ({ case: 'code', value: { source, environment } }),
    answer: answerOf,
    log: 'stdout',
    others: 0,
    outOfMemory: ['OUT_OF_MEMORY'],
    failing: FAILING_CODE,
    environment,
    without: {},
  };
}

/** Python code, and commands, as jobs of Slurm. */
export function slurmJob(): Subject {
  return { ...pythonCode({ kind: { case: 'inline', value: {} } }), slurm: true };
}

/** JavaScript in the sandbox. */
export function nodejsCode(): Subject {
  return {
    language: 'nodejs',
    target: (source) => ({ case: 'code', value: { source, language: 'nodejs' } }),
    answer: answerOf,
    log: 'stdout',
    others: 1,
    outOfMemory: ['OUT_OF_MEMORY'],
    failing: FAILING_NODEJS,
    without: { command: 'no environment of its own that a command could name' },
  };
}

/** The same handlers in a program that calls them, as a command. */
export function pythonCommand(): Subject {
  const main = '\nimport json, sys\nprint(json.dumps(handler(json.load(sys.stdin))))\n';
  return {
    language: 'python',
    target: (source) => ({ case: 'command', value: { argv: ['/usr/bin/python3', '-u', '-c', `${source}${main}`] } }),
    answer: async ({ id }, stack) => {
      const { stdout } = await storedLog(stack.executions, id);
      return JSON.parse(stdout.toString('utf8').trimEnd().split('\n').at(-1) ?? '');
    },
    log: 'stdout',
    others: 1,
    outOfMemory: ['OUT_OF_MEMORY', 'EXIT_NONZERO'],
    failing: [],
    without: {
      context: NOT_HANDLED,
      async: NOT_HANDLED,
      progress: NOT_HANDLED,
      output: 'its answer is on the stream that would be compared: test_command.py of the runtime has it',
      truncation: 'its answer is on the stream that would be cut',
      forgery: 'its result is its exit code',
      failures: 'its result is its exit code: what ends a command is tried with every environment',
      command: 'it is one',
    },
  };
}

/** The same handlers in a program of an image, which follows the container protocol. */
export function imageOf(image: string): Subject {
  const main = `
import json, os, sys
answer = os.dup(1)
os.dup2(2, 1)
output = handler(json.load(sys.stdin)["input"])
with os.fdopen(answer, "w") as stdout:
    json.dump({"ok": True, "output": output}, stdout)
`;
  return {
    language: 'python',
    target: (source) => ({ case: 'image', value: { image, argv: ['python3', '-u', '-c', `${source}${main}`] } }),
    answer: answerOf,
    log: 'stderr',
    others: 1,
    outOfMemory: ['OUT_OF_MEMORY', 'EXIT_NONZERO'],
    failing: [],
    without: {
      context: NOT_HANDLED,
      async: NOT_HANDLED,
      progress: NOT_HANDLED,
      output: 'what it prints is one stream: e2e/docker-executor.test.ts has it for both',
      failures: 'a program says by itself how it has failed: container-protocol.test.ts',
      command: 'it is one',
    },
  };
}
