import { type Hardware, Hardware_Gpu_StateSchema } from '@harrier/shared/gen/agent';
import { collectedCounter, collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';

type Gpu = Hardware['gpus'][number];

/** States of the schema in small letters, the unspecified one left out. */
const STATES = Hardware_Gpu_StateSchema.values
  .filter(({ number }) => number !== 0)
  .map(({ number, name }) => ({ number, name: name.toLowerCase() }));

/** Cards and MIG instances, by the UUIDs of the driver. Only cards whose driver tells figures have one. */
export function addGpuMetrics(register: MetricsRegistry, hardware: () => Hardware): void {
  const cards = () => hardware().gpus.filter(({ uuid }) => uuid !== '');
  const each = (read: (gpu: Gpu) => number | undefined) => () =>
    cards().flatMap((gpu) => {
      const value = read(gpu);
      return value === undefined ? [] : [{ labels: { gpu: gpu.uuid }, value }];
    });
  const gauge = (name: string, help: string, read: (gpu: Gpu) => number | undefined) =>
    collectedGauge(register, { name, help, labelNames: ['gpu'], read: each(read) });

  gauge(
    'harrier_agent_gpu_utilization_ratio',
    'Share of time in which a GPU was busy; none where the card does not tell.',
    (gpu) => gpu.utilizationRatio,
  );
  gauge(
    'harrier_agent_gpu_memory_used_bytes',
    'Memory of a GPU in use; none where the card does not tell.',
    ({ memoryUsedBytes }) => (memoryUsedBytes === undefined ? undefined : Number(memoryUsedBytes)),
  );
  gauge('harrier_agent_gpu_memory_bytes', 'Memory of a GPU.', (gpu) => Number(gpu.memoryBytes));
  gauge(
    'harrier_agent_gpu_temperature_celsius',
    'Temperature of a GPU; none where the card does not tell.',
    (gpu) => gpu.temperatureCelsius,
  );
  gauge(
    'harrier_agent_gpu_power_watts',
    'Power that a GPU draws; none where the card does not tell.',
    (gpu) => gpu.powerWatts,
  );
  gauge(
    'harrier_agent_gpu_power_limit_watts',
    'Power that a GPU may draw; none where the card does not tell.',
    (gpu) => gpu.powerLimitWatts,
  );
  gauge(
    'harrier_agent_gpu_last_xid',
    "Number of the driver's last error of a GPU since the boot; 0 without one.",
    (gpu) => gpu.lastXid,
  );
  collectedCounter(register, {
    name: 'harrier_agent_gpu_uncorrected_ecc_errors_total',
    help: 'Memory errors of a GPU that could not be corrected, since its driver was loaded; none where the card does not tell.',
    labelNames: ['gpu'],
    read: each(({ uncorrectedEccErrors }) =>
      uncorrectedEccErrors === undefined ? undefined : Number(uncorrectedEccErrors),
    ),
  });
  collectedGauge(register, {
    name: 'harrier_agent_gpu_state',
    help: '1 for the state that a GPU or MIG instance is in, 0 for the others: free, reserved, quarantined, divided, unmanaged.',
    labelNames: ['gpu', 'state'],
    read: () =>
      cards()
        .flatMap((gpu) => [gpu, ...gpu.migInstances])
        .filter(({ state }) => state !== 0)
        .flatMap(({ uuid, state }) =>
          STATES.map(({ number, name }) => ({ labels: { gpu: uuid, state: name }, value: Number(number === state) })),
        ),
  });
  collectedGauge(register, {
    name: 'harrier_agent_gpu_info',
    help: 'Always 1; the labels say what a GPU is.',
    labelNames: ['gpu', 'index', 'model', 'driver', 'cuda'],
    read: () =>
      cards().map(({ uuid, index, model, driverVersion, cudaVersion }) => ({
        labels: { gpu: uuid, index: String(index), model, driver: driverVersion, cuda: cudaVersion },
        value: 1,
      })),
  });
}
