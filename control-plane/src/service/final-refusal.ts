import { HarrierError } from '@harrier/shared';

/** What another try cannot change. */
const CODES: ReadonlySet<string> = new Set([
  'invalid_argument',
  'not_found',
  'already_exists',
  'failed_precondition',
  'permission_denied',
]);

/** Whether what was asked for is refused whenever it is asked for, not only now. */
export function isFinalRefusal(error: unknown): boolean {
  return error instanceof HarrierError && CODES.has(error.code);
}
