import { readFile } from 'node:fs/promises';
import { uptime } from 'node:os';
import type { Probe } from './probe.ts';

/** Linux gives each boot a UUID; elsewhere the time of the boot stands in, to ten seconds, so that it does not wander. */
export const bootIdProbe: Probe = {
  everyMs: undefined,
  read: async () => {
    const id = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => undefined);
    return { bootId: id?.trim() ?? `boot-${Math.round((Date.now() / 1000 - uptime()) / 10)}` };
  },
};
