import type { CardProcess, NvidiaCard } from '../hardware/nvidia-card.ts';

const MIB = 1024 * 1024;
/** The driver's own share wavers by some MiB; the smallest program takes more than 100 MiB. */
const WAVER_BYTES = 64 * MIB;
/** What a card that nobody uses takes at most: firmware and page tables of the largest ones. */
const IDLE_RATIO = 0.01;
const IDLE_LEAST_BYTES = 600 * MIB;

/** A card or a MIG instance, as far as it matters what is on it. */
export interface UnitReading {
  uuid: string;
  memoryBytes: number;
  memoryUsedBytes: number;
  processes: readonly CardProcess[];
}

/** The units of a card: itself, or its MIG instances when it is divided. Those without a UUID cannot be named, and are left out. */
export function unitsOf(card: NvidiaCard): UnitReading[] {
  if (!card.divided) {
    const { uuid, memoryBytes, figures, processes } = card;
    return [{ uuid, memoryBytes, memoryUsedBytes: figures.memoryUsedBytes ?? 0, processes }];
  }
  return card.instances
    .filter(({ uuid }) => uuid !== '')
    .map(({ uuid, memoryBytes, memoryUsedBytes, gpuInstance, computeInstance }) => {
      const isOn = (process: CardProcess) =>
        process.gpuInstance === gpuInstance && (process.computeInstance ?? computeInstance) === computeInstance;
      return { uuid, memoryBytes, memoryUsedBytes, processes: card.processes.filter(isOn) };
    });
}

/**
 * What is on a unit that nobody has; undefined: nothing. A desktop that only draws does not count.
 * @param idleBytes memory in use when nothing is on it; undefined: not known
 */
export function leftOn(unit: UnitReading, idleBytes: number | undefined): string | undefined {
  const computing = unit.processes.filter(({ drawsOnly }) => !drawsOnly);
  if (computing.length > 0) return computing.map(describeProcess).join(', ');
  const idle = Math.min(idleBytes ?? Number.POSITIVE_INFINITY, mostWhenIdle(unit));
  // Where the agent sees no processes of others, as in a container, memory is all that tells of them.
  const used = memoryOf(unit);
  return used <= idle + WAVER_BYTES ? undefined : `${mib(used)} of memory (${mib(idle)} when idle)`;
}

/** The memory that a unit takes when nothing is on it, with what was known before: the least that was ever seen. */
export function idleBytesOf(unit: UnitReading, known: number | undefined): number {
  return Math.min(known ?? Number.POSITIVE_INFINITY, memoryOf(unit), mostWhenIdle(unit));
}

/**
 * Why a card is not fit for use, by what it says of itself; undefined: it is.
 * @param eccErrors uncorrected memory errors that were known before; undefined: this is the first look at it
 */
export function sicknessOf(card: NvidiaCard, eccErrors: number | undefined): string | undefined {
  const { uncorrectedEccErrors } = card.figures;
  if (uncorrectedEccErrors !== undefined && eccErrors !== undefined && uncorrectedEccErrors > eccErrors) {
    return `memory errors that cannot be corrected: ${uncorrectedEccErrors}, before ${eccErrors}`;
  }
  return card.recovery === '' ? undefined : `the driver asks for recovery: ${card.recovery}`;
}

/** What is in use beside a desktop. */
function memoryOf({ memoryUsedBytes, processes }: UnitReading): number {
  const drawing = processes.filter(({ drawsOnly }) => drawsOnly).reduce((sum, one) => sum + one.memoryBytes, 0);
  return Math.max(0, memoryUsedBytes - drawing);
}

function mostWhenIdle({ memoryBytes }: UnitReading): number {
  return Math.max(IDLE_LEAST_BYTES, memoryBytes * IDLE_RATIO);
}

function describeProcess({ pid, name, memoryBytes }: CardProcess): string {
  const file = name === '' ? '' : ` (${name})`;
  return `process ${pid}${file}${memoryBytes === 0 ? '' : ` with ${mib(memoryBytes)}`}`;
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}
