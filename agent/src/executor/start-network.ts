import { type Limits, Limits_Network as Network } from '@harrier/shared/gen/module';
import type { StartNetwork } from '../launcher/messages.ts';

/**
 * What a call may reach, as the launcher takes it; undefined: nothing.
 * @param indexHosts where the package index of this agent and its files are
 */
export function startNetwork(limits: Limits | undefined, indexHosts: readonly string[]): StartNetwork | undefined {
  switch (limits?.network) {
    case Network.INDEX:
      return { mode: 'hosts', hosts: indexHosts };
    case Network.EGRESS:
      return { mode: 'hosts', hosts: limits.egressHosts };
    case Network.FULL:
      return { mode: 'full' };
    default:
      return undefined;
  }
}
