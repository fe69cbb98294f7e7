import { availableParallelism, totalmem } from 'node:os';
import { isAbsolute } from 'node:path';
import { parseBytes, type SettingsReader } from '@harrier/shared';
import { GPUS_SETTING, type GpuSelection, parseGpuSelection } from './gpu/gpu-selection.ts';

/** What an operator lets executions have; docs/gpus.md explains the part of the cards. */
export interface CapacitySettings {
  cpus: number;
  memoryBytes: number;
  /** Of one execution; no more than all of them can have. */
  maxMemoryBytes: number;
  gpus: GpuSelection;
  gpuDevRoot: string;
}

const MAX_CPUS = 65_536;
const BYTES = { min: 1, max: Number.MAX_SAFE_INTEGER };
const DEV = '/dev';

export function readCapacitySettings(settings: SettingsReader): CapacitySettings {
  const memoryBytes = memory(settings);
  return {
    cpus: cpus(settings),
    memoryBytes,
    maxMemoryBytes: settings.integer('HARRIER_AGENT_MAX_MEMORY_BYTES', memoryBytes, BYTES),
    gpus: gpus(settings),
    gpuDevRoot: devRoot(settings),
  };
}

function cpus(settings: SettingsReader): number {
  const text = settings.text('HARRIER_AGENT_CPUS');
  const value = Number(text);
  if (text === undefined) return availableParallelism();
  if (value > 0 && value <= MAX_CPUS) return value;
  settings.problems.push(`HARRIER_AGENT_CPUS must be a number above 0 and up to ${MAX_CPUS}, not "${text}"`);
  return availableParallelism();
}

function memory(settings: SettingsReader): number {
  const text = settings.text('HARRIER_AGENT_MEMORY');
  if (text === undefined) return totalmem();
  const bytes = Number(parseBytes(text));
  if (bytes > 0) return bytes;
  settings.problems.push(`HARRIER_AGENT_MEMORY must be a size like 64GiB or a number of bytes, not "${text}"`);
  return totalmem();
}

function gpus(settings: SettingsReader): GpuSelection {
  const text = settings.text(GPUS_SETTING, 'all');
  const selection = parseGpuSelection(text);
  if (selection !== undefined) return selection;
  settings.problems.push(`${GPUS_SETTING} must be all, none, or UUIDs like GPU-… and MIG-… with commas, not "${text}"`);
  return 'none';
}

function devRoot(settings: SettingsReader): string {
  const text = settings.text('HARRIER_AGENT_GPU_DEV_ROOT', DEV);
  if (isAbsolute(text)) return text;
  settings.problems.push(`HARRIER_AGENT_GPU_DEV_ROOT must be an absolute path, not "${text}"`);
  return DEV;
}
