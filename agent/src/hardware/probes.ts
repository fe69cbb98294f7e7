import { bootIdProbe } from './boot-id.ts';
import { cpuProbe } from './cpu.ts';
import { disksProbe } from './disks.ts';
import type { GpuSource } from './gpu-source.ts';
import { type GpusProbe, gpusProbe } from './gpus.ts';
import { memoryProbe } from './memory.ts';
import { networksProbe } from './networks.ts';
import { osProbe } from './os.ts';
import type { Probe } from './probe.ts';
import { slurmProbe } from './slurm.ts';
import { readSystemInformation, type SystemInformation } from './system-information.ts';
import { toolsProbe } from './tools.ts';

/**
 * Everything that is found out about a host, by name.
 * @param searchPath where tools are looked for, as in PATH
 * @param nvidia NVIDIA's cards, with who has them
 */
export function createProbes(searchPath: string, nvidia: GpuSource): Record<string, Probe> & { gpus: GpusProbe } {
  let asked: Promise<SystemInformation | undefined> | undefined;
  const information = (): Promise<SystemInformation | undefined> => {
    asked ??= readSystemInformation();
    return asked;
  };
  return {
    cpu: cpuProbe(information),
    memory: memoryProbe,
    disks: disksProbe(),
    gpus: gpusProbe(searchPath, nvidia, information),
    networks: networksProbe(),
    os: osProbe(information),
    slurm: slurmProbe(searchPath),
    tools: toolsProbe(searchPath),
    'boot-id': bootIdProbe,
  };
}
