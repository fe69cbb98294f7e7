import { setTimeout as pause } from 'node:timers/promises';
import { HarrierError, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type CreateExecutionRequest, Execution_State as State } from '@harrier/shared/gen/execution';
import { refusedForGood } from '../db/refused-for-good.ts';
import { ExpressionError } from '../workflow/expression.ts';
import { type Asked, type Executions, type Outcome, RefusedError, type RunOptions } from '../workflow/run-actor.ts';
import type { EndState } from '../workflow/run-state.ts';
import type { ExecutionService } from './execution-service.ts';
import { isFinalRefusal } from './final-refusal.ts';

/** Where a refusal does not say when to come again. */
const AGAIN_MS = 500;
/** Finds an execution by its idempotency key. */
type FindByKey = (tenantId: string, key: string) => Promise<string | undefined>;

type Accepted = Awaited<ReturnType<ExecutionService['accept']>>;

/** The executions of workflows: those of the service, as everybody's. */
export function workflowExecutions(
  executions: Pick<ExecutionService, 'accept' | 'finished' | 'cancel'>,
  findByKey: FindByKey,
): Executions {
  /** What was accepted stands, and is found; what is refused for want of room is asked for again when it is time. */
  const accept = async (
    tenantId: string,
    { key, before, request }: Asked,
    { signal, unwanted }: RunOptions,
  ): Promise<Accepted> => {
    const accepted = async (): Promise<Accepted | undefined> => {
      const id = await findByKey(tenantId, key);
      return id === undefined ? undefined : { id, tracked: undefined };
    };
    if (before) {
      const found = await accepted();
      if (found !== undefined) return found;
    }
    let made: CreateExecutionRequest | undefined;
    while (true) {
      signal.throwIfAborted();
      try {
        made ??= await request();
        // It takes a while to make one: the run may have been stopped meanwhile, or in the very step that began the node.
        unwanted.throwIfAborted();
        return await executions.accept(tenantId, made, '');
      } catch (error) {
        const final = finalErrorOf(error);
        if (final !== undefined) {
          // An answer may have been lost, and its module be gone by now: what was accepted goes on, or has to be ended.
          const found = await accepted();
          if (found !== undefined) return found;
          throw final;
        }
        if (!(error instanceof HarrierError)) throw error;
        const woken = AbortSignal.any([signal, unwanted]);
        await pause(error.retryAfterMs ?? AGAIN_MS, undefined, { signal: woken }).catch(() => undefined);
      }
    }
  };
  return {
    run: async (tenantId, asked, options) => {
      const { id, tracked } = await accept(tenantId, asked, options);
      options.onAccepted(id);
      const ended = await executions.finished(tenantId, id, tracked, options.signal);
      return {
        executionId: id,
        state: endStateOf(ended.state),
        outputJson: ended.outputJson,
        error: ended.error === undefined ? undefined : { code: ended.error.code, message: ended.error.message },
      } satisfies Outcome;
    },
    cancel: async (tenantId, id) => {
      await executions.cancel(tenantId, id, 'its workflow was stopped');
    },
  };
}

/** What another try cannot change; undefined: it may. */
function finalErrorOf(error: unknown): Error | undefined {
  if (error instanceof RefusedError || error instanceof ExpressionError) return error;
  const refused = refusedForGood(error) ?? (isFinalRefusal(error) ? messageOf(error) : undefined);
  return refused === undefined ? undefined : new RefusedError({ code: Code.INPUT_INVALID, message: refused });
}

function endStateOf(state: State): EndState {
  switch (state) {
    case State.SUCCEEDED:
      return 'SUCCEEDED';
    case State.TIMED_OUT:
      return 'TIMED_OUT';
    case State.CANCELLED:
      return 'CANCELLED';
    default:
      return 'FAILED';
  }
}
