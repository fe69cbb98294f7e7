import type { Limits } from '@harrier/shared/gen/module';

/** What this agent's own configuration allows an attempt to ask for, whatever the control plane says. */
export interface LimitCaps {
  memoryBytes: number;
  tmpBytes: number;
}

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
  return undefined;
}
