import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GpuKeeper } from '../../agent/src/gpu/gpu-keeper.ts';
import { GpuRecords } from '../../agent/src/gpu/gpu-records.ts';
import { isWorthTelling } from '../../agent/src/hardware/hardware-change.ts';
import { HardwareMonitor } from '../../agent/src/hardware/hardware-monitor.ts';
import { KernelLog } from '../../agent/src/hardware/kernel-log.ts';
import { NvidiaSmi } from '../../agent/src/hardware/nvidia-smi.ts';
import { createProbes } from '../../agent/src/hardware/probes.ts';
import { createLogger } from '../../shared/src/logger.ts';

const TESTDATA = new URL('../../agent/src/hardware/testdata/', import.meta.url);
const TICKS_A_SECOND = 100;
/** Beats that are measured: so many minutes of an agent. */
const MINUTES = 10;
const BEATS_A_MINUTE = 6;
const BEAT_S = 10;
/** A card of a data centre can run at so many clocks, and its answer names them all. */
const CLOCKS = 600;

/**
 * What the probes of a host with eight cards cost at the beat of 10 s, in per cent of a core: the agent's own work and the
 * processes that it starts. A stand-in answers in the place of the driver, so that the driver's own work is not in it.
 */
export async function measureProbes(): Promise<Record<string, number>> {
  const directory = mkdtempSync(join(tmpdir(), 'harrier-bench-probes-'));
  try {
    writeTool(directory);
    const searchPath = `${directory}:/usr/local/bin:/usr/bin:/bin`;
    const logger = createLogger({ name: 'bench', level: 'silent' });
    const keeper = new GpuKeeper({
      tool: new NvidiaSmi(searchPath),
      kernelLog: new KernelLog({ searchPath, logger }),
      records: new GpuRecords(directory, 'bench', logger),
      selection: 'all',
      onChange: () => {},
      logger,
      timings: { lookEveryMs: Number.POSITIVE_INFINITY },
    });
    const probes = createProbes(searchPath, keeper);
    const monitor = new HardwareMonitor({ probes, onChange: () => {}, logger });
    // What is asked once, at the start, is not of the beat.
    await monitor.start(60_000);
    monitor.stop();
    const before = cpuTicks();
    for (let minute = 0; minute < MINUTES; minute++) {
      // A look at everything, which is due once a minute.
      await keeper.clear('');
      await Promise.all([probes.networks?.read(), probes.slurm?.read()]);
      for (let beat = 0; beat < BEATS_A_MINUTE; beat++) {
        await Promise.all([probes.gpus.read(), probes.disks?.read()]);
        isWorthTelling(monitor.current, monitor.current);
      }
    }
    const seconds = (cpuTicks() - before) / TICKS_A_SECOND;
    keeper.close();
    return { probe_cpu_percent: (seconds / (MINUTES * BEATS_A_MINUTE * BEAT_S)) * 100 };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function writeTool(directory: string): void {
  const read = (name: string) => readFileSync(new URL(name, TESTDATA), 'utf8');
  const clocks = '<supported_graphics_clock>1980 MHz</supported_graphics_clock>\n'.repeat(CLOCKS);
  const all = read('nvidia-570-h200-8.xml').replaceAll('</value>', `</value>\n${clocks}`);
  writeFileSync(join(directory, 'all.xml'), all);
  writeFileSync(join(directory, 'figures.csv'), read('nvidia-figures-8.csv'));
  const path = join(directory, 'nvidia-smi');
  writeFileSync(
    path,
    `#!/bin/sh\ncase "$*" in -q*) exec cat ${directory}/all.xml;; *) exec cat ${directory}/figures.csv;; esac\n`,
  );
  chmodSync(path, 0o755);
}

/** Of this process and of all that it has started and that have ended; see proc(5). */
function cpuTicks(): number {
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ') ?? [];
  return [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
}
