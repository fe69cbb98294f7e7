import type { Assignment } from '@harrier/shared/gen/link';
import { environmentKind } from '../environment/environment-request.ts';
import type { AboutAttempt, AttemptKey } from './executor.ts';

/** What is kept of an attempt for the log, the metrics and traces. */
export interface LogFacts extends AttemptKey, AboutAttempt {}

/** What every line of the log says that is about an attempt. */
export function logFacts({ executionId, attempt, tenant, taskClass }: LogFacts): LogFacts {
  return {
    executionId,
    attempt,
    ...(tenant === undefined ? {} : { tenant }),
    ...(taskClass === undefined ? {} : { taskClass }),
  };
}

/** What is to be kept of an assignment. */
export function aboutOf(assignment: Assignment): Required<AboutAttempt> {
  const { tenant, taskClass, traceParent } = assignment;
  return { tenant, taskClass, environment: environmentKind(assignment), traceParent };
}

/** Of what is kept, that. */
export function aboutAttempt({ tenant, taskClass, environment, traceParent }: AboutAttempt): AboutAttempt {
  return {
    ...(tenant === undefined ? {} : { tenant }),
    ...(taskClass === undefined ? {} : { taskClass }),
    ...(environment === undefined ? {} : { environment }),
    ...(traceParent === undefined ? {} : { traceParent }),
  };
}
