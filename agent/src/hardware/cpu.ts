import { arch, availableParallelism, cpus } from 'node:os';
import type { Probe } from './probe.ts';
import type { SystemInformation } from './system-information.ts';

/** The kernel's names, as in `uname -m`. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' };

export function cpuProbe(information: () => Promise<SystemInformation | undefined>): Probe {
  return {
    everyMs: undefined,
    read: async () => {
      const known = (await information())?.cpu;
      const logicalCores = cpus().length || availableParallelism();
      const model = known === undefined ? (cpus()[0]?.model ?? '') : `${known.manufacturer} ${known.brand}`.trim();
      const architecture = ARCHITECTURES[arch()] ?? arch();
      return { cpu: { model, physicalCores: known?.physicalCores ?? logicalCores, logicalCores, architecture } };
    },
  };
}
