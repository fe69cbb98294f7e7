import { bootIdProbe } from './boot-id.ts';
import { cpuProbe } from './cpu.ts';
import { disksProbe } from './disks.ts';
import { gpusProbe } from './gpus.ts';
import { memoryProbe } from './memory.ts';
import { osProbe } from './os.ts';
import type { Probe } from './probe.ts';
import { readSystemInformation, type SystemInformation } from './system-information.ts';
import { toolsProbe } from './tools.ts';

/** Everything that is found out about a host, by name. @param searchPath where tools are looked for, as in PATH */
export function createProbes(searchPath: string): Record<string, Probe> {
  let asked: Promise<SystemInformation | undefined> | undefined;
  const information = (): Promise<SystemInformation | undefined> => {
    asked ??= readSystemInformation();
    return asked;
  };
  return {
    cpu: cpuProbe(information),
    memory: memoryProbe,
    disks: disksProbe(),
    gpus: gpusProbe(searchPath, information),
    os: osProbe(information),
    tools: toolsProbe(searchPath),
    'boot-id': bootIdProbe,
  };
}
