import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { HarrierError, type HarrierErrorCode, type Logger } from '@harrier/shared';
import { withoutDatabaseErrors } from '../../service/while-away.ts';
import { fieldError } from '../field-error.ts';
import { retryLaterError } from '../retry-later-error.ts';
import { mapStreamErrors } from './map-stream-errors.ts';
import { methodNameOf } from './method-name.ts';

const CODES: Record<HarrierErrorCode, Code> = {
  invalid_argument: Code.InvalidArgument,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  failed_precondition: Code.FailedPrecondition,
  resource_exhausted: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
  unauthenticated: Code.Unauthenticated,
  permission_denied: Code.PermissionDenied,
  aborted: Code.Aborted,
  deadline_exceeded: Code.DeadlineExceeded,
  canceled: Code.Canceled,
  internal: Code.Internal,
};

export interface CallFacts {
  /** For the log: `harrier.v1.ExecutionService/Execute`. */
  method: string;
  /** The call's signal: an error that it caused is the caller's doing, not a defect. */
  signal?: AbortSignal | undefined;
}

/** The error that a caller sees for anything that was thrown. What is not meant for callers is logged and answered as `internal error`. */
export function toConnectError(raw: unknown, call: CallFacts, logger: Logger): ConnectError {
  const thrown = withoutDatabaseErrors(raw);
  if (thrown instanceof ConnectError) return thrown;
  if (thrown instanceof HarrierError) {
    if (thrown.code === 'internal') logger.error({ err: thrown, method: call.method }, 'call failed');
    return fromHarrierError(thrown);
  }
  if (call.signal?.aborted && (thrown === call.signal.reason || isAbortError(thrown))) {
    return call.signal.reason instanceof ConnectError
      ? call.signal.reason
      : new ConnectError('the caller went away', Code.Canceled);
  }
  logger.error({ err: thrown, method: call.method }, 'call failed unexpectedly');
  return new ConnectError('internal error', Code.Internal);
}

/** Maps what services throw, also in the middle of a stream, to errors of the protocol. */
export function createErrorMapping(logger: Logger): Interceptor {
  return (next) => async (request) => {
    const mapped = (thrown: unknown) =>
      toConnectError(thrown, { method: methodNameOf(request.method), signal: request.signal }, logger);
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: mapStreamErrors(response.message, mapped) } : response;
    } catch (error) {
      throw mapped(error);
    }
  };
}

function fromHarrierError({ code, message, field, retryAfterMs, cause }: HarrierError): ConnectError {
  if (retryAfterMs !== undefined) return retryLaterError(message, CODES[code], retryAfterMs);
  if (field !== undefined) return fieldError(field, message, CODES[code], cause);
  return new ConnectError(message, CODES[code], undefined, undefined, cause);
}

function isAbortError(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === 'AbortError';
}
