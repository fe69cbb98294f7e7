import { create } from '@bufbuild/protobuf';
import { NO_TRACING, type Span, type Tracing } from '@harrier/shared';
import { AssignmentSchema } from '@harrier/shared/gen/link';
import { expect, test } from 'vitest';
import { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { InlineEnvironment } from '../environment/inline-environment.ts';
import type { Executor } from '../executor/executor.ts';
import { NO_GPUS } from '../test-support/no-gpus.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { AttemptTable } from './attempt-table.ts';
import { AttemptTrace } from './attempt-trace.ts';

const CALLER = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

/** Spans are named by their order; what happens to them is written down. */
function recorder() {
  const events: string[] = [];
  const tracing: Tracing = {
    enabled: true,
    start: (name, { parent }) => {
      const span: Span = {
        traceParent: `place-of-${name}`,
        set: (attributes) => events.push(`${name} ${JSON.stringify(attributes)}`),
        end: ({ error } = {}) => events.push(`${name} ends${error === undefined ? '' : `: ${error}`}`),
      };
      events.push(`${name} in ${parent}`);
      return span;
    },
    stop: async () => {},
  };
  return { events, tracing };
}

function assignment(env: Record<string, string> = {}) {
  return create(AssignmentSchema, {
    ref: { executionId: 'a', attempt: 1 },
    tenant: 't',
    taskClass: 'cpu_short',
    program: { case: 'python', value: {} },
    environment: { kind: { case: 'inline', value: {} } },
    limits: { memoryBytes: 1n, tmpBytes: 1n },
    traceParent: CALLER,
    env,
  });
}

test('an attempt is a span with its steps, each of which ends', () => {
  const { events, tracing } = recorder();
  const trace = new AttemptTrace(tracing, assignment(), 'venv');
  trace.prepare();
  expect(trace.run()).toBe('place-of-run');
  trace.end('failed', 'exit code 3');
  trace.end('dropped', 'again');
  expect(events).toEqual([
    `attempt in ${CALLER}`,
    'prepare in place-of-attempt',
    'prepare ends',
    'run in place-of-attempt',
    'run ends: exit code 3',
    'attempt {"harrier.outcome":"failed"}',
    'attempt ends: exit code 3',
  ]);
});

function startedWith(tracing: Tracing, env: Record<string, string>): Record<string, string> | undefined {
  let started: Record<string, string> | undefined;
  const environments = new EnvironmentRegistry(() => {});
  environments.add(new InlineEnvironment());
  const nothing = () => {};
  const table = new AttemptTable({
    ...{
      slots: 1,
      environments,
      caps: { cpu: 4, memoryBytes: 1, tmpBytes: 1, network: 'none' },
      gpus: NO_GPUS,
      tracing,
    },
    ...{ send: nothing, onFinished: nothing, onEnvironmentPrepared: nothing, onQuiet: nothing, onForgotten: nothing },
    logger: silentLogger(),
  });
  table.addExecutor({
    ...({ kind: 'process', cancel: nothing, acknowledgeOutput: nothing, forget: nothing, replay: nothing } as const),
    start: (given) => {
      started = given.env;
      return undefined;
    },
  } satisfies Executor);
  table.assign(assignment(env));
  return started;
}

test('code is told of its span, or of the caller’s where this agent traces nothing', () => {
  expect(startedWith(recorder().tracing, { A: '1' })).toEqual({ A: '1', TRACEPARENT: 'place-of-run' });
  expect(startedWith(NO_TRACING, {})).toEqual({ TRACEPARENT: CALLER });
  expect(startedWith(NO_TRACING, { TRACEPARENT: 'mine' }), 'what the caller has set').toEqual({ TRACEPARENT: 'mine' });
});
