import type { Interceptor } from '@connectrpc/connect';
import type { Logger } from '@harrier/shared';
import type { AccessGate } from '../interceptors/auth.ts';
import type { ApiLimits } from '../limits.ts';

/** What every call passes, however it arrives. */
export interface CallOptions {
  interceptors: Interceptor[];
  gate: AccessGate;
  limits: ApiLimits;
  logger: Logger;
  shutdownSignal: AbortSignal | undefined;
}
