/** Closed set of reasons for which a request is refused; the names are those of Connect's codes. */
export type HarrierErrorCode =
  | 'invalid_argument'
  | 'not_found'
  | 'already_exists'
  | 'failed_precondition'
  | 'resource_exhausted'
  | 'unavailable'
  | 'unauthenticated'
  | 'permission_denied'
  | 'aborted'
  | 'deadline_exceeded'
  | 'canceled'
  | 'internal';

export interface HarrierErrorOptions {
  /** Path of the request's field that is wrong, for example `module.version`. */
  field?: string;
  /** When the same request may be tried again, in milliseconds from now. */
  retryAfterMs?: number;
  cause?: unknown;
}

/** The one error that crosses our layers; its message names the operation and the offending value and is shown to callers. */
export class HarrierError extends Error {
  readonly code: HarrierErrorCode;
  readonly field: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: HarrierErrorCode, message: string, options: HarrierErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HarrierError';
    this.code = code;
    this.field = options.field;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
