import { findExecutable } from './find-executable.ts';
import type { HardwareFacts, Probe } from './probe.ts';
import { runTool } from './run-tool.ts';
import type { SystemInformation } from './system-information.ts';

const EVERY_MS = 10_000;
const TIMEOUT_MS = 5_000;
/** A driver that hung once hangs again, and each try may leave a process that cannot be killed. */
const AFTER_HANG_MS = 300_000;
const FIELDS = ['index', 'uuid', 'name', 'memory.total', 'memory.used', 'utilization.gpu', 'driver_version'];
const MIB = 1024n * 1024n;

type Gpu = Exclude<NonNullable<HardwareFacts['gpus']>[number], { $typeName: string }>;

/** NVIDIA cards from the driver's own tool, with figures; other cards as the system lists them, without. */
export function gpusProbe(
  searchPath: string,
  information: () => Promise<SystemInformation | undefined>,
  timeoutMs = TIMEOUT_MS,
): Probe {
  let askAgainAtMs = 0;
  return {
    everyMs: EVERY_MS,
    read: async () => {
      const startMs = performance.now();
      if (startMs < askAgainAtMs) return {};
      const tool = await findExecutable('nvidia-smi', searchPath);
      const query = [`--query-gpu=${FIELDS.join(',')}`, '--format=csv,noheader,nounits'];
      const output = tool === undefined ? undefined : await runTool(tool, query, timeoutMs);
      if (performance.now() - startMs >= timeoutMs) askAgainAtMs = performance.now() + AFTER_HANG_MS;
      const nvidia = parseNvidiaSmi(output ?? '');
      const others = ((await information())?.graphics ?? []).filter((card) => !/nvidia/i.test(card.vendor));
      return { gpus: [...nvidia, ...others.map((card, position) => otherGpu(card, nvidia.length + position))] };
    },
  };
}

/** Reads the comma-separated answer of nvidia-smi; what a card does not support reads `[N/A]` and becomes 0. */
export function parseNvidiaSmi(csv: string): Gpu[] {
  const lines = csv.split('\n').map((line) => line.split(',').map((cell) => cell.trim()));
  return lines
    .filter((cells) => cells.length === FIELDS.length)
    .map(([index, uuid = '', model = '', total, used, utilization, driverVersion = '']) => ({
      uuid,
      index: numberOf(index),
      model,
      vendor: 'NVIDIA',
      memoryBytes: BigInt(numberOf(total)) * MIB,
      memoryUsedBytes: BigInt(numberOf(used)) * MIB,
      utilizationRatio: numberOf(utilization) / 100,
      driverVersion,
    }));
}

function numberOf(text: string | undefined): number {
  const value = Number(text);
  return Number.isFinite(value) ? Math.round(value) : 0;
}

function otherGpu({ vendor, model, vramMib }: SystemInformation['graphics'][number], index: number): Gpu {
  return { index, vendor, model, memoryBytes: BigInt(Math.round(vramMib)) * MIB };
}
