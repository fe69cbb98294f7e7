import { create as message } from '@bufbuild/protobuf';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import { type Environment, EnvironmentSchema } from '@harrier/shared/gen/module';
import { expect } from 'vitest';
import { storedLog } from '../support/executions.ts';
import { fixture } from '../support/requests.ts';
import type { Stack } from '../support/stack.ts';

/** What a probe is one of; each is one test of `probes.ts`, or several. */
export type ProbeName =
  | 'fork_bomb'
  | 'memory_bomb'
  | 'fill'
  | 'make_files'
  | 'open_files'
  | 'spin'
  | 'flood'
  | 'endless_line'
  | 'deep'
  | 'files'
  | 'sockets'
  | 'privileges'
  | 'calls'
  | 'terminal'
  | 'daemon'
  | 'stubborn'
  | 'channel';

/** A program of `test/fixtures` that takes a JSON object and answers one. */
export type ProgramName = 'probe' | 'ticker' | 'sleeper';

type Target =
  | { case: 'code'; value: { source: string; language?: string; environment?: Environment } }
  | { case: 'command'; value: { argv: string[]; environment?: Environment } }
  | { case: 'image'; value: { image: string; argv: string[] } };

/** Something that runs what callers bring, and that the probes are tried in. */
export interface Subject {
  /** As docs/security.md has it. */
  name: string;
  /** How it runs a program. */
  target: (program: ProgramName) => Target;
  /** What a program that has succeeded has answered. */
  answer: (execution: Execution, stack: Stack) => Promise<unknown>;
  /** The stream that programs print to. */
  log: 'stdout' | 'stderr';
  /** How many processes a probe sees: itself, and those that have started it. */
  processes: number;
  /** The codes that memory beyond the limit may end with: what runs out of it may say so by itself. */
  outOfMemory: readonly ('OUT_OF_MEMORY' | 'EXIT_NONZERO')[];
  /** Probes that say nothing about it, each with the reason. */
  without: Partial<Record<ProbeName, string>>;
}

const answerOf = async (execution: Execution) => JSON.parse(execution.outputJson);
const NO_RESULT = 'it has no result';

/** Python code in an environment. */
export function pythonCode(name: string, environment?: Environment): Subject {
  return {
    name,
    target: (program) => {
      const source = fixture(`${program}.py`);
      return { case: 'code', value: { source, ...(environment && { environment }) } };
    },
    answer: answerOf,
    log: 'stdout',
    processes: 1,
    outOfMemory: ['OUT_OF_MEMORY'],
    without: {},
  };
}

/** The same programs as commands: what the kernel allows does not depend on who starts the interpreter. */
export function pythonCommand(): Subject {
  const main = '\nimport json\nprint(json.dumps(handler(json.load(sys.stdin))))\n';
  return {
    name: 'command',
    target: (program) => ({
      case: 'command',
      value: { argv: ['/usr/bin/python3', '-u', '-c', `import sys\n${fixture(`${program}.py`)}${main}`] },
    }),
    answer: async ({ id }, stack) => {
      const { stdout } = await storedLog(stack.executions, id);
      return JSON.parse(stdout.toString('utf8'));
    },
    log: 'stdout',
    processes: 2,
    outOfMemory: ['OUT_OF_MEMORY', 'EXIT_NONZERO'],
    without: { deep: NO_RESULT, channel: 'nothing of its result goes another way than its exit code' },
  };
}

/** Node.js in the sandbox. What only a system call can try, Python tries for it, as its child. */
export function nodejsCode(): Subject {
  return {
    name: 'Node.js in the sandbox',
    target: (program) => {
      const source = fixture(`${program}.js`).replace('PYTHON_PROBE', JSON.stringify(fixture('probe.py')));
      return { case: 'code', value: { source, language: 'nodejs' } };
    },
    answer: answerOf,
    log: 'stdout',
    processes: 3,
    outOfMemory: ['OUT_OF_MEMORY'],
    without: {},
  };
}

/** A container for the call, that answers by the container protocol: images, and languages with a runner image. */
export function containerOfImage(image: string): Subject {
  const main = `
import json
answer = os.dup(1)
os.dup2(2, 1)
output = handler(json.load(sys.stdin)["input"])
with os.fdopen(answer, "w") as stdout:
    json.dump({"ok": True, "output": output}, stdout)
`;
  return {
    name: 'container of a call',
    target: (program) => {
      const argv = ['python3', '-u', '-c', `import os, sys\n${fixture(`${program}.py`)}${main}`];
      return { case: 'image', value: { image, argv } };
    },
    answer: answerOf,
    log: 'stderr',
    processes: 2,
    outOfMemory: ['OUT_OF_MEMORY', 'EXIT_NONZERO'],
    without: {
      deep: 'its answer is text: what is too deep is refused in e2e/docker-runners.test.ts',
      channel: 'its answer goes over standard output: container-protocol.test.ts has what it may not be',
    },
  };
}

/** Runs a program once: the probes begin when everything that it needs is there. */
export function expectSuccess(execution: Execution): void {
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
}

export function environmentOf(kind: Environment['kind']): Environment {
  return message(EnvironmentSchema, { kind });
}
