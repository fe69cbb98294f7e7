import type { Span, Tracing } from '@harrier/shared';
import type { Assignment } from '@harrier/shared/gen/link';

/**
 * An attempt on this agent as spans: `attempt` from its arrival to its end, in it `prepare` while its environment is made, and
 * `run` from the moment at which its executor has it. Spans of an agent that is gone are not told to anybody.
 */
export class AttemptTrace {
  readonly #tracing: Tracing;
  readonly #attempt: Span;
  #step: Span | undefined;
  #ended = false;

  constructor(tracing: Tracing, { ref, tenant, taskClass, traceParent }: Assignment, environment: string) {
    this.#tracing = tracing;
    this.#attempt = tracing.start('attempt', {
      parent: traceParent,
      kind: 'consumer',
      attributes: {
        'harrier.execution.id': ref?.executionId ?? '',
        'harrier.attempt': ref?.attempt ?? 0,
        'harrier.tenant': tenant,
        'harrier.task_class': taskClass,
        'harrier.environment': environment,
      },
    });
  }

  /** Its environment is being made. */
  prepare(): void {
    this.#next('prepare');
  }

  /** It goes to its executor. @returns what the code is told of its place in the trace */
  run(): string {
    return this.#next('run').traceParent;
  }

  /** Calls after the first change nothing. @param error why it did not succeed */
  end(outcome: string, error?: string): void {
    if (this.#ended) return;
    this.#ended = true;
    const how = error === undefined ? {} : { error };
    this.#step?.end(how);
    this.#attempt.set({ 'harrier.outcome': outcome });
    this.#attempt.end(how);
  }

  #next(name: string): Span {
    this.#step?.end();
    this.#step = this.#tracing.start(name, { parent: this.#attempt.traceParent });
    return this.#step;
  }
}
