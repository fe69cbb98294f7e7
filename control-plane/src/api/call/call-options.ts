import type { Interceptor } from '@connectrpc/connect';
import type { Logger } from '@harrier/shared';
import type { BodyBudget } from '../body-budget.ts';
import type { AccessGate } from '../interceptors/auth.ts';
import type { Observe } from '../interceptors/rpc-metrics.ts';
import type { ApiLimits } from '../limits.ts';

/** What every call passes, however it arrives. */
export interface CallOptions {
  interceptors: Interceptor[];
  gate: AccessGate;
  /** Told of calls that end before an interceptor sees them: their body cannot be read or decoded. */
  observe: Observe;
  limits: ApiLimits;
  bodies: BodyBudget;
  logger: Logger;
  shutdownSignal: AbortSignal | undefined;
}
