import { cpus, freemem, loadavg } from 'node:os';
import { create } from '@bufbuild/protobuf';
import { type HostLoad, HostLoadSchema } from '@harrier/shared/gen/agent';

/** Answers what the host does; the processors' share is that since the call before. */
export function createHostLoadReader(): (spoolBytes: number) => HostLoad {
  let before = cpuTimes();
  return (spoolBytes) => {
    const now = cpuTimes();
    const totalMs = now.totalMs - before.totalMs;
    const cpuRatio = totalMs > 0 ? (now.busyMs - before.busyMs) / totalMs : 0;
    before = now;
    const [load1m = 0, load5m = 0, load15m = 0] = loadavg();
    return create(HostLoadSchema, {
      cpuRatio: Math.min(1, Math.max(0, cpuRatio)),
      load1m,
      load5m,
      load15m,
      memoryAvailableBytes: BigInt(freemem()),
      spoolBytes: BigInt(spoolBytes),
    });
  };
}

function cpuTimes(): { busyMs: number; totalMs: number } {
  let idleMs = 0;
  let totalMs = 0;
  for (const { times } of cpus()) {
    idleMs += times.idle;
    totalMs += times.user + times.nice + times.sys + times.irq + times.idle;
  }
  return { busyMs: totalMs - idleMs, totalMs };
}
