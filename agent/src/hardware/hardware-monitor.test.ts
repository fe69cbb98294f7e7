import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { silentLogger } from '../test-support/silent-logger.ts';
import { HardwareMonitor } from './hardware-monitor.ts';
import type { HardwareFacts, Probe } from './probe.ts';

const GIB = 1024n ** 3n;

function probeOf(read: () => HardwareFacts | Promise<HardwareFacts>, everyMs?: number): Probe {
  return { everyMs, read: async () => read() };
}

function monitorOf(probes: Record<string, Probe>) {
  const onChange = vi.fn();
  const monitor = new HardwareMonitor({ probes, onChange, logger: silentLogger() });
  onTestFinished(() => monitor.stop());
  return { monitor, onChange };
}

describe('the hardware', () => {
  test('is what all probes say together', async () => {
    const { monitor } = monitorOf({
      memory: probeOf(() => ({ memoryBytes: GIB })),
      cpu: probeOf(() => ({ cpu: { model: 'x', logicalCores: 4 } })),
    });
    await monitor.start(10_000);
    expect(monitor.current).toMatchObject({ memoryBytes: GIB, cpu: { model: 'x', logicalCores: 4 } });
  });

  test('is there without a probe that hangs or fails, and complete when that answers', async () => {
    const late = Promise.withResolvers<HardwareFacts>();
    const { monitor, onChange } = monitorOf({
      hangs: probeOf(() => late.promise),
      fails: probeOf(() => Promise.reject(new Error('no'))),
      works: probeOf(() => ({ bootId: 'b' })),
    });
    await monitor.start(20);
    expect(monitor.tell()).toMatchObject({ bootId: 'b', memoryBytes: 0n });
    late.resolve({ memoryBytes: GIB });
    await vi.waitFor(() => expect(onChange).toHaveBeenCalledTimes(1));
    expect(monitor.tellChange()?.memoryBytes).toBe(GIB);
    expect(monitor.tellChange()).toBeUndefined();
  });

  test('is not asked for again when the monitor was stopped during the first look', async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const { monitor } = monitorOf({ works: probeOf(() => ({ bootId: 'b' })) });
    const started = monitor.start(1_000);
    monitor.stop();
    await started;
    expect(vi.getTimerCount(), 'nothing keeps the process up').toBe(0);
  });

  test('is asked for again when it is due, and told when it has changed', async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    let available = 50n * GIB;
    const disks = () => ({ disks: [{ mount: '/', sizeBytes: 100n * GIB, availableBytes: available }] });
    const once = vi.fn(() => ({ bootId: 'b' }));
    const { monitor, onChange } = monitorOf({ disks: probeOf(disks, 10_000), once: probeOf(once) });
    await monitor.start(1_000);
    monitor.tell();
    available -= GIB / 2n;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(monitor.tellChange(), 'half a hundredth is not worth telling').toBeUndefined();
    available -= GIB;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(onChange).toHaveBeenCalledTimes(1);
    expect(monitor.tellChange()?.disks[0]?.availableBytes).toBe(available);
    expect(once).toHaveBeenCalledTimes(1);
  });
});
