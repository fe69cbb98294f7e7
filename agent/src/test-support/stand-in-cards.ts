import type { MigInstance, NvidiaCard, NvidiaReading } from '../hardware/nvidia-card.ts';
import type { CardFigures } from '../hardware/nvidia-figures.ts';
import type { NvidiaAnswer } from '../hardware/nvidia-smi.ts';

const MIB = 1024 * 1024;

/** A card with nothing on it. */
export function idleCard(uuid: string, change: Partial<NvidiaCard> = {}): NvidiaCard {
  return {
    uuid,
    index: 0,
    minor: 0,
    pciBusId: '00000000:3B:00.0',
    model: 'NVIDIA H200',
    memoryBytes: 143_771 * MIB,
    figures: {
      memoryUsedBytes: 4 * MIB,
      utilizationRatio: 0,
      temperatureCelsius: 30,
      powerWatts: 75,
      powerLimitWatts: 700,
      uncorrectedEccErrors: 0,
    },
    divided: false,
    instances: [],
    processes: [],
    recovery: '',
    ...change,
  };
}

export function idleInstance(uuid: string, gpuInstance: number): MigInstance {
  const memoryBytes = 20_000 * MIB;
  return {
    uuid,
    profile: '2g.20gb',
    index: 0,
    gpuInstance,
    computeInstance: 0,
    memoryBytes,
    memoryUsedBytes: 12 * MIB,
  };
}

/** A process that computes. */
export function processOn(pid: number, gpuInstance?: number): NvidiaCard['processes'][number] {
  const computeInstance = gpuInstance === undefined ? undefined : 0;
  return { pid, name: 'python3', memoryBytes: 500 * MIB, drawsOnly: false, gpuInstance, computeInstance };
}

/** A driver that says what the test wants. */
export class StandInDriver {
  cards: NvidiaCard[];
  complaint = '';
  /** Set: it does not answer. */
  silence: string | undefined;
  looks = 0;

  constructor(...cards: NvidiaCard[]) {
    this.cards = cards;
  }

  async look(): Promise<NvidiaAnswer<NvidiaReading>> {
    this.looks++;
    if (this.silence !== undefined) return { kind: 'silent', reason: this.silence };
    const value = { driverVersion: '570.86.15', cudaVersion: '12.8', cards: structuredClone(this.cards), lost: [] };
    return { kind: 'answered', value, complaint: this.complaint };
  }

  async figures(): Promise<NvidiaAnswer<CardFigures[]>> {
    if (this.silence !== undefined) return { kind: 'silent', reason: this.silence };
    const value = this.cards.map(({ uuid, index, figures }) => ({ uuid, index, figures: { ...figures } }));
    return { kind: 'answered', value, complaint: '' };
  }
}
