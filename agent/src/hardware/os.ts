import { hostname, platform, release } from 'node:os';
import type { Probe } from './probe.ts';
import type { SystemInformation } from './system-information.ts';

export function osProbe(information: () => Promise<SystemInformation | undefined>): Probe {
  return {
    everyMs: undefined,
    read: async () => {
      const known = (await information())?.os;
      return {
        os: {
          platform: known?.platform ?? platform(),
          distribution: known?.distro ?? '',
          release: known?.release ?? '',
          kernel: known?.kernel ?? release(),
          hostname: hostname(),
        },
      };
    },
  };
}
