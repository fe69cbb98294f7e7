import { setTimeout as pause } from 'node:timers/promises';
import { HarrierError } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type CreateExecutionRequest, Execution_State as State } from '@harrier/shared/gen/execution';
import { refusedForGood } from '../db/refused-for-good.ts';
import { type Executions, type Outcome, RefusedError, type RunOptions } from '../workflow/run-actor.ts';
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
  /** What is refused for want of room is asked for again when it is time. */
  const accept = async (
    tenantId: string,
    request: CreateExecutionRequest,
    { signal, unwanted }: RunOptions,
  ): Promise<Accepted> => {
    while (true) {
      signal.throwIfAborted();
      if (unwanted.aborted) {
        // An answer may have been lost: what was accepted has to be ended as well.
        const id = await findByKey(tenantId, request.idempotencyKey);
        if (id === undefined) throw unwanted.reason;
        return { id, tracked: undefined };
      }
      try {
        return await executions.accept(tenantId, request, '');
      } catch (error) {
        const refused = refusedForGood(error);
        if (refused !== undefined) throw new RefusedError({ code: Code.INPUT_INVALID, message: refused });
        if (!(error instanceof HarrierError)) throw error;
        if (isFinalRefusal(error)) throw new RefusedError({ code: Code.INPUT_INVALID, message: error.message });
        const woken = AbortSignal.any([signal, unwanted]);
        await pause(error.retryAfterMs ?? AGAIN_MS, undefined, { signal: woken }).catch(() => undefined);
      }
    }
  };
  return {
    run: async (tenantId, request, options) => {
      const { id, tracked } = await accept(tenantId, request, options);
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
