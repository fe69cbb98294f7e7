import {
  type Hardware_Gpu as Gpu,
  type Hardware_Gpu_MigInstance as MigInstance,
  Hardware_Gpu_State as State,
} from '@harrier/shared/gen/agent';
import { nameIn } from '../execution/describe.ts';
import { formatBytes } from '../execution/describe-execution.ts';
import { formatTable } from '../output/table.ts';
import { paint, type Style } from '../output/terminal.ts';

const STATE_STYLES: Readonly<Record<string, Style>> = { FREE: 'green', RESERVED: 'yellow', QUARANTINED: 'red' };
/** What executions can have. */
const GIVEN: readonly State[] = [State.FREE, State.RESERVED, State.QUARANTINED];

/**
 * The cards of an agent in one cell: `3/8 free, 1 quarantined, 41%`; instances of divided cards count as cards. The use is that of
 * cards that tell it.
 */
export function gpuCell(gpus: readonly Gpu[]): string {
  const units = gpus.flatMap(unitsOf).filter(({ state }) => GIVEN.includes(state));
  if (units.length === 0) return '-';
  const count = (state: State) => units.filter((unit) => unit.state === state).length;
  const ratios = gpus.flatMap(({ state, utilizationRatio }) =>
    state === State.UNMANAGED || utilizationRatio === undefined ? [] : utilizationRatio,
  );
  const busy = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
  const sick = count(State.QUARANTINED);
  return [
    `${count(State.FREE)}/${units.length} free`,
    ...(sick === 0 ? [] : [paint('red', `${sick} quarantined`)]),
    ...(ratios.length === 0 ? [] : [`${Math.round(busy * 100)}%`]),
  ].join(', ');
}

/** Every card, the instances of one that is divided behind it. */
export function gpuTable(gpus: readonly Gpu[]): string {
  const heading = [
    'GPU',
    'STATE',
    'MODEL',
    'UUID',
    'MEMORY',
    'USE',
    'TEMP',
    'POWER',
    'ECC',
    'XID',
    'EXECUTION',
    'REASON',
  ];
  return formatTable(
    heading,
    gpus.flatMap((gpu) => [cardRow(gpu), ...gpu.migInstances.map(instanceRow)]),
  );
}

/** What uses the cards, as their drivers tell. */
export function gpuProcessTable(gpus: readonly Gpu[]): string {
  const rows = gpus.flatMap(({ index, processes }) =>
    processes.map(({ pid, name, memoryBytes }) => [String(index), String(pid), name || '-', formatBytes(memoryBytes)]),
  );
  return rows.length === 0 ? '' : formatTable(['GPU', 'PID', 'PROCESS', 'MEMORY'], rows);
}

function unitsOf(gpu: Gpu): { state: State }[] {
  return gpu.state === State.DIVIDED ? gpu.migInstances : [gpu];
}

function cardRow(gpu: Gpu): string[] {
  const { memoryUsedBytes, utilizationRatio, powerWatts, powerLimitWatts, temperatureCelsius } = gpu;
  const { uncorrectedEccErrors, lastXid } = gpu;
  return [
    String(gpu.index),
    paintGpuState(gpu.state),
    gpu.model || gpu.vendor,
    gpu.uuid || '-',
    (memoryUsedBytes === undefined ? '' : `${formatBytes(memoryUsedBytes)} of `) + formatBytes(gpu.memoryBytes),
    utilizationRatio === undefined ? '-' : `${Math.round(utilizationRatio * 100)}%`,
    temperatureCelsius === undefined ? '-' : `${temperatureCelsius} °C`,
    powerWatts === undefined ? '-' : `${Math.round(powerWatts)}${limitOf(powerLimitWatts)} W`,
    uncorrectedEccErrors === undefined ? '-' : String(uncorrectedEccErrors),
    lastXid === 0 ? '-' : String(lastXid),
    gpu.executionId || '-',
    gpu.stateReason || '-',
  ];
}

function instanceRow({ uuid, profile, memoryBytes, state, executionId, stateReason }: MigInstance): string[] {
  const none = ['-', '-', '-', '-', '-'];
  const memory = formatBytes(memoryBytes);
  return ['', paintGpuState(state), `MIG ${profile}`, uuid, memory, ...none, executionId || '-', stateReason || '-'];
}

function paintGpuState(state: State): string {
  const name = nameIn(State, state);
  return paint(STATE_STYLES[name] ?? 'dim', name);
}

function limitOf(watts: number | undefined): string {
  return watts === undefined ? '' : ` of ${Math.round(watts)}`;
}
