import type { Logger } from '@harrier/shared';
import { BOOT } from './environment/manifest.ts';
import { GpuDevices } from './gpu/gpu-devices.ts';
import { GpuKeeper } from './gpu/gpu-keeper.ts';
import { GpuRecords } from './gpu/gpu-records.ts';
import type { GpuSelection } from './gpu/gpu-selection.ts';
import { KernelLog } from './hardware/kernel-log.ts';
import { NvidiaSmi } from './hardware/nvidia-smi.ts';

export interface GpuPartsOptions {
  dataDir: string;
  selection: GpuSelection;
  devRoot: string;
  /** Where tools of the host are looked for, as in PATH. */
  searchPath: string;
  /** A card is free, or quarantined, or no longer, or more is known of whose parts instances are. */
  onChange: () => void;
  logger: Logger;
}

/** Everything of an agent that has to do with cards. */
export interface GpuParts {
  keeper: GpuKeeper;
  devices: GpuDevices;
  close(): Promise<void>;
}

export function createGpuParts(options: GpuPartsOptions): GpuParts {
  const { dataDir, selection, devRoot, searchPath, onChange, logger } = options;
  const kernelLog = new KernelLog({ searchPath, logger });
  const keeper = new GpuKeeper({
    tool: new NvidiaSmi(searchPath),
    kernelLog,
    records: new GpuRecords(dataDir, BOOT, logger),
    selection,
    onChange,
    logger,
  });
  return {
    keeper,
    devices: new GpuDevices({ cardOf: (uuid) => keeper.cardOf(uuid), devRoot, searchPath }),
    close: async () => {
      keeper.close();
      await kernelLog.close();
    },
  };
}
