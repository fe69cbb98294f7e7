import type { Logger } from '@harrier/shared';
import { type ExecutionError_Code as Code, ExecutionError_CodeSchema } from '@harrier/shared/gen/error';
import type { AttemptEnd, AttemptKey, StartRefusal } from '../executor/executor.ts';
import type { HeldAttempt } from './held-attempt.ts';

/** What a finished attempt adds to the metrics. */
export interface FinishedAttempt {
  taskClass: string;
  environment: string;
  /** Empty when the attempt was found at the start of the agent by a keeper that does not know it. */
  tenant: string;
  outcome: AttemptEnd['outcome'];
  runMs: number;
  /** Its place in a trace; empty: none. */
  traceParent: string;
}

/** What an assignment that was not taken adds to the metrics. */
export interface RejectedAttempt {
  /** Name of the error code in small letters. */
  code: string;
}

/** What an environment that is there adds to the metrics. */
export interface EnvironmentPrepared {
  environment: string;
  /** `hit`: it was there when the attempt came. */
  cache: 'hit' | 'miss';
  prepareMs: number;
}

export interface AttemptReportsOptions {
  onFinished: (finished: FinishedAttempt) => void;
  onEnvironmentPrepared: (prepared: EnvironmentPrepared) => void;
  onRejected?: (rejected: RejectedAttempt) => void;
  logger: Logger;
}

/** An assignment that is not taken. */
export type Rejected = Pick<HeldAttempt, 'tenant' | 'taskClass'> & { ref?: AttemptKey | undefined };

/** What the log and the metrics of the agent are told of attempts. */
export class AttemptReports {
  readonly #options: AttemptReportsOptions;

  constructor(options: AttemptReportsOptions) {
    this.#options = options;
  }

  prepared(environment: string, cache: 'hit' | 'miss', prepareMs: number): void {
    // What needs no preparation.
    if (environment === 'inline' || environment === 'nodejs') return;
    this.#options.onEnvironmentPrepared({ environment, cache, prepareMs });
  }

  finished(held: HeldAttempt, { outcome, runMs, error }: AttemptEnd): void {
    const { taskClass, environment, tenant, traceParent } = held;
    this.#options.onFinished({ taskClass, environment, tenant, outcome, runMs, traceParent });
    const code = error === undefined ? undefined : codeName(error.code);
    // A line for each of thousands of short calls a second would take the agent half as much time again.
    const level = outcome === 'succeeded' ? 'debug' : 'info';
    const facts = { ...logFacts(held), outcome, code, prepareMs: held.prepareMs, runMs };
    this.#options.logger[level](facts, 'attempt ended');
  }

  rejected(ref: AttemptKey, { tenant, taskClass }: Rejected, { error, requeue }: StartRefusal): void {
    const code = codeName(error.code);
    const { executionId, attempt } = ref;
    const facts = { executionId, attempt, tenant, taskClass, requeue, code, reason: error.message };
    this.#options.logger.warn(facts, 'attempt rejected');
    this.#options.onRejected?.({ code: code.toLowerCase() });
  }

  cancelling(held: HeldAttempt): void {
    this.#options.logger.info(logFacts(held), 'cancelling');
  }

  dropped(held: HeldAttempt, reason: string): void {
    this.#options.logger.info({ ...logFacts(held), reason }, 'dropped');
  }
}

/** What every line of the log says that is about an attempt. */
function logFacts({ executionId, attempt, tenant, taskClass }: HeldAttempt) {
  return { executionId, attempt, tenant, taskClass };
}

function codeName(code: Code): string {
  return ExecutionError_CodeSchema.value[code]?.name ?? String(code);
}
