import { Hardware_Gpu_State as State } from '@harrier/shared/gen/agent';
import type { Gpu, GpuSource } from './gpu-source.ts';
import type { HardwareFacts, Probe } from './probe.ts';
import { readRocm } from './rocm.ts';
import type { SystemInformation } from './system-information.ts';

const EVERY_MS = 10_000;
const MIB = 1024n * 1024n;
const NOT_GIVEN = { state: State.UNMANAGED, stateReason: 'the agent gives only cards of NVIDIA' };

/** The probe of cards, which can also tell between two questions what is known. */
export interface GpusProbe extends Probe {
  facts(): HardwareFacts;
}

/** NVIDIA's cards with who has them, AMD's from their own tool, and others as the system lists them, without figures. */
export function gpusProbe(
  searchPath: string,
  nvidia: GpuSource,
  information: () => Promise<SystemInformation | undefined>,
): GpusProbe {
  let others: Gpu[] = [];
  const facts = (): HardwareFacts => {
    const own = nvidia.list();
    return {
      gpus: [...own, ...others.map((gpu, position) => ({ ...gpu, ...NOT_GIVEN, index: own.length + position }))],
    };
  };
  return {
    everyMs: EVERY_MS,
    read: async () => {
      const [amd, listed] = await Promise.all([readRocm(searchPath), information(), nvidia.refresh()]);
      const skipped = amd === undefined ? /nvidia/i : /nvidia|amd|advanced micro devices/i;
      const listedOthers = (listed?.graphics ?? []).filter(({ vendor }) => !skipped.test(vendor));
      others = [...(amd ?? []), ...listedOthers.map(listedGpu)];
      return facts();
    },
    facts,
  };
}

function listedGpu({ vendor, model, vramMib }: SystemInformation['graphics'][number]): Gpu {
  return { vendor, model, memoryBytes: BigInt(Math.round(vramMib)) * MIB };
}
