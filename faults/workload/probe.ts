import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { Clients } from '../../test/support/clients.ts';
import { probeRequest } from './request.ts';

const TRY_TIMEOUT_MS = 10_000;
const RETRY_MS = 50;

/**
 * Waits until an execution on each of the selectors has succeeded.
 * @param name no other probe has it
 * @returns whether they did before the signal
 */
export async function untilRuns(
  clients: () => Clients,
  selectors: readonly string[],
  name: string,
  givenUp: AbortSignal,
): Promise<boolean> {
  const probe = async (selector: string): Promise<boolean> => {
    const request = probeRequest(selector, `probe-${name}-${selector}`);
    while (!givenUp.aborted) {
      const signal = AbortSignal.any([givenUp, AbortSignal.timeout(TRY_TIMEOUT_MS)]);
      const answer = await clients()
        .executions.execute(request, { signal })
        .catch(() => undefined);
      if (answer?.execution !== undefined) return answer.execution.state === State.SUCCEEDED;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    return false;
  };
  return (await Promise.all(selectors.map(probe))).every(Boolean);
}
