import { type Limits, Limits_Network as Network } from '@harrier/shared/gen/module';

/** What this agent's own configuration allows an attempt to ask for, whatever the control plane says. */
export interface LimitCaps {
  memoryBytes: number;
  tmpBytes: number;
  network: NetworkCap;
}

/** The most network access: each word includes those before it. */
export const NETWORK_CAPS = ['none', 'index', 'egress', 'full'] as const;
export type NetworkCap = (typeof NETWORK_CAPS)[number];

const SETTINGS = [
  { field: 'memoryBytes', name: 'memory_bytes', setting: 'HARRIER_AGENT_MAX_MEMORY_BYTES' },
  { field: 'tmpBytes', name: 'tmp_bytes', setting: 'HARRIER_AGENT_MAX_TMP_BYTES' },
] as const;

/**
 * Why these limits are not allowed here, with the limit, what is asked and the most; undefined when they are. An
 * assignment has every limit set: one that is missing would be no limit at all, and is not allowed either.
 */
export function deniedLimit(limits: Limits | undefined, caps: LimitCaps): string | undefined {
  for (const { field, name, setting } of SETTINGS) {
    const asked = limits?.[field] ?? 0n;
    if (asked > 0n && asked <= BigInt(caps[field])) continue;
    const what = asked === 0n ? 'no bound' : `${asked} bytes`;
    return `limits.${name} asks for ${what}; this agent allows at most ${caps[field]} bytes (${setting})`;
  }
  return deniedNetwork(limits?.network ?? Network.NONE, caps.network);
}

function deniedNetwork(asked: Network, cap: NetworkCap): string | undefined {
  // The words of the schema stand in the same order, behind the unspecified one, which is none.
  const order = Math.max(asked, Network.NONE) - Network.NONE;
  if (order <= NETWORK_CAPS.indexOf(cap)) return undefined;
  const name = NETWORK_CAPS[order]?.toUpperCase() ?? asked;
  return `limits.network asks for ${name}; this agent allows at most ${cap.toUpperCase()} (HARRIER_AGENT_MAX_NETWORK)`;
}
