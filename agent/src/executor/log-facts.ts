import type { AttemptKey } from './executor.ts';

/** What is kept of an attempt for the log; absent where an agent kept it that did not log it. */
export interface LogFacts extends AttemptKey {
  tenant?: string;
  taskClass?: string;
}

/** What every line of the log says that is about an attempt. */
export function logFacts({ executionId, attempt, tenant, taskClass }: LogFacts): LogFacts {
  return {
    executionId,
    attempt,
    ...(tenant === undefined ? {} : { tenant }),
    ...(taskClass === undefined ? {} : { taskClass }),
  };
}
