import { Code, ConnectError } from '@connectrpc/connect';
import type { Clients } from '../../test/support/clients.ts';

/** A try that nobody answers is given up, and made again elsewhere. */
const TRY_TIMEOUT_MS = 15_000;
const RETRY_MS = 200;
/** A refusal that another try does not change. */
const REFUSALS: readonly Code[] = [Code.InvalidArgument, Code.NotFound, Code.PermissionDenied, Code.Unauthenticated];

/**
 * Calls until a replica answers.
 * @param clients of a replica; another one each time, as a load balancer does
 * @throws a refusal, or the signal's reason
 */
export async function untilAnswered<T>(
  clients: () => Clients,
  signal: AbortSignal,
  call: (clients: Clients, options: { signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  while (true) {
    signal.throwIfAborted();
    try {
      return await call(clients(), { signal: AbortSignal.any([signal, AbortSignal.timeout(TRY_TIMEOUT_MS)]) });
    } catch (error) {
      if (REFUSALS.includes(ConnectError.from(error).code)) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
