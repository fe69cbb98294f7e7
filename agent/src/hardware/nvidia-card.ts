/** What nvidia-smi tells of one card. A figure is undefined where the card does not tell it. */
export interface NvidiaCard {
  /** The driver's UUID, `GPU-…`. */
  uuid: string;
  /** The driver's index; it changes when a card before it is lost. */
  index: number;
  /** Number of its device node, /dev/nvidiaN. */
  minor: number | undefined;
  /** For example `00000000:3B:00.0`. */
  pciBusId: string;
  model: string;
  memoryBytes: number;
  figures: NvidiaFigures;
  /** It is divided into MIG instances, which are given instead of it, even when there is none yet. */
  divided: boolean;
  instances: MigInstance[];
  processes: CardProcess[];
  /** What the driver says must be done before the card can be used again, for example `Reset`; empty: nothing. */
  recovery: string;
}

/** What changes from one look to the next. */
export interface NvidiaFigures {
  memoryUsedBytes: number | undefined;
  /** 0 to 1. */
  utilizationRatio: number | undefined;
  temperatureCelsius: number | undefined;
  powerWatts: number | undefined;
  powerLimitWatts: number | undefined;
  /** Since the driver was loaded. */
  uncorrectedEccErrors: number | undefined;
}

/** Those of a card that nobody has looked at. */
export const NO_FIGURES: NvidiaFigures = {
  memoryUsedBytes: undefined,
  utilizationRatio: undefined,
  temperatureCelsius: undefined,
  powerWatts: undefined,
  powerLimitWatts: undefined,
  uncorrectedEccErrors: undefined,
};

/** A part of a card that works like a card. */
export interface MigInstance {
  /** `MIG-…`; empty: it has none yet, or the driver does not tell. */
  uuid: string;
  /** For example `1g.10gb`. */
  profile: string;
  index: number;
  gpuInstance: number;
  computeInstance: number;
  memoryBytes: number;
  memoryUsedBytes: number;
}

/** A process that has memory on the card. */
export interface CardProcess {
  pid: number;
  /** As the driver gives it. */
  name: string;
  memoryBytes: number;
  /** It only draws: a desktop, which is there beside whatever computes. */
  drawsOnly: boolean;
  /** Of the MIG instance that it is on. */
  gpuInstance: number | undefined;
  computeInstance: number | undefined;
}

/** Everything that one question to the driver has told. */
export interface NvidiaReading {
  driverVersion: string;
  /** The newest version of CUDA that the driver serves. */
  cudaVersion: string;
  cards: NvidiaCard[];
  /** PCI ids of cards that are on the bus and do not answer. */
  lost: string[];
}
