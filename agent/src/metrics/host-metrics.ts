import type { Hardware, HostLoad } from '@harrier/shared/gen/agent';
import { collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';

export interface HostSources {
  hardware: () => Hardware;
  /** As the last heartbeat had it; undefined before the first. */
  load: () => HostLoad | undefined;
}

/** What an agent sees of its host, for places without an exporter of their own. */
export function addHostMetrics(register: MetricsRegistry, { hardware, load }: HostSources): void {
  const gauge = (name: string, help: string, read: () => number | undefined) =>
    collectedGauge(register, { name, help, read });
  gauge(
    'harrier_agent_host_cpu_ratio',
    'Share of all processors of the host in use between the last two heartbeats.',
    () => load()?.cpuRatio,
  );
  gauge('harrier_agent_host_memory_bytes', 'Physical memory of the host.', () => Number(hardware().memoryBytes));
  gauge('harrier_agent_host_memory_available_bytes', 'Memory of the host that is free, at the last heartbeat.', () => {
    const bytes = load()?.memoryAvailableBytes;
    return bytes === undefined ? undefined : Number(bytes);
  });
  for (const [name, help, read] of [
    ['size', 'Size of a local file system.', 'sizeBytes'],
    ['available', 'Bytes of a local file system that can still be written.', 'availableBytes'],
  ] as const) {
    collectedGauge(register, {
      name: `harrier_agent_disk_${name}_bytes`,
      help,
      labelNames: ['mount'],
      read: () => hardware().disks.map((disk) => ({ labels: { mount: disk.mount }, value: Number(disk[read]) })),
    });
  }
}
