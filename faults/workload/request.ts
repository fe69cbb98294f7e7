import { readFileSync } from 'node:fs';
import type { JsonValue, MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { CreateExecutionRequestSchema, ExecuteRequestSchema } from '@harrier/shared/gen/execution';
import type { ExecutionPlan } from '../execution-plan.ts';

/** A request as `createExecution` and `execute` take it. */
export type Request = Omit<MessageInitShape<typeof CreateExecutionRequestSchema>, '$typeName' | '$unknown'>;

type ExecuteFields = Omit<MessageInitShape<typeof ExecuteRequestSchema>, '$typeName' | '$unknown'>;

/** Where code finds what it needs in a world. */
export interface Surroundings {
  /** Where code may find its witness's pipe, in the order of trying. */
  witness: readonly string[];
  /** Image with Python. */
  image: string;
}

const SOURCE = readFileSync(new URL('./job.py', import.meta.url), 'utf8');
const MEMORY_BYTES = 256n * 1024n * 1024n;
/** Whatever a fault may do to an attempt, and what some do to themselves. */
const RETRIED = [
  Code.AGENT_LOST,
  Code.SUBMIT_FAILED,
  Code.INTERNAL,
  Code.KILLED,
  Code.HANDLER_ERROR,
  Code.EXIT_NONZERO,
  Code.ENVIRONMENT_FAILED,
];

/** As often as it takes: of attempts, and of tries of a node. */
export const BACKOFF = {
  maxAttempts: 30,
  initialBackoff: { nanos: 100_000_000 },
  maxBackoff: { seconds: 1n },
} as const;

/** The request of a planned execution. Its key makes it safe to send again. */
export function requestOf(plan: ExecutionPlan, surroundings: Surroundings): Request {
  return {
    ...whatToRun(plan, surroundings),
    inputForm: { case: 'inputJson', value: JSON.stringify(jobInput(plan, surroundings)) },
    idempotencyKey: plan.key,
  };
}

/** A request without what makes it one execution among others: also what a node of a workflow runs. */
export function whatToRun(plan: ExecutionPlan, surroundings: Surroundings): Request {
  // A flaky one ends when it fails by itself: its workflow tries again.
  const codes = RETRIED.filter((code) => !plan.isFlaky || code !== Code.HANDLER_ERROR);
  return {
    ...targetOf(plan, surroundings),
    timeout: { seconds: 120n },
    limits: { memoryBytes: MEMORY_BYTES },
    retryPolicy: plan.retries ? { ...BACKOFF, codes } : { maxAttempts: 1 },
  };
}

/** Runs at once on the agents of the selector, and says nothing to anybody. */
export function probeRequest(agentSelector: string, idempotencyKey: string): ExecuteFields {
  return {
    target: { case: 'code', value: { source: 'def handler(input):\n    return {}\n' } },
    agentSelector,
    idempotencyKey,
    retryPolicy: { maxAttempts: 30, maxBackoff: { seconds: 1n } },
  };
}

function targetOf({ kind }: ExecutionPlan, { image }: Surroundings): Pick<Request, 'target'> {
  const docker = { kind: { case: 'docker' as const, value: { image } } };
  const command = ['python3', '-c', SOURCE];
  switch (kind) {
    case 'inline':
      return { target: { case: 'code', value: { source: SOURCE } } };
    case 'venv': {
      const environment = { kind: { case: 'venv' as const, value: { requirements: [] } } };
      return { target: { case: 'code', value: { source: SOURCE, environment } } };
    }
    case 'docker':
      return { target: { case: 'code', value: { source: SOURCE, environment: docker } } };
    case 'command':
      return { target: { case: 'command', value: { argv: command } } };
    case 'container':
      return { target: { case: 'command', value: { argv: command, environment: docker } } };
  }
}

/** What `job.py` reads. A container of its own shows nothing of the host: no witness there. */
export function jobInput(plan: ExecutionPlan, { witness }: Surroundings): Record<string, JsonValue> {
  return {
    key: plan.key,
    witness: plan.kind === 'container' ? [] : [...witness],
    lines: plan.lines,
    line_bytes: plan.lineBytes,
    run_ms: plan.runMs,
    failures: plan.failures,
    flaky: plan.isFlaky,
    daemon: plan.daemon,
  };
}
