import { HarrierError } from '@harrier/shared';

/** Default timeouts of the task classes, in milliseconds. */
const TIMEOUTS_MS: Readonly<Record<string, number>> = {
  cpu_short: 60_000,
  cpu_long: 15 * 60_000,
};

export const DEFAULT_TASK_CLASS = 'cpu_short';

/** @throws HarrierError invalid_argument for a class that does not exist. */
export function taskClassTimeoutMs(taskClass: string, field: string): number {
  const timeoutMs = Object.hasOwn(TIMEOUTS_MS, taskClass) ? TIMEOUTS_MS[taskClass] : undefined;
  if (timeoutMs !== undefined) return timeoutMs;
  throw new HarrierError(
    'invalid_argument',
    `${field}: there is no task class "${taskClass}"; choose one of ${Object.keys(TIMEOUTS_MS).join(', ')}`,
    { field },
  );
}
