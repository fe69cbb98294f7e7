import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger, messageOf } from '@harrier/shared';

/** What must be known of a card or MIG instance when the agent is started again. */
export interface GpuRecord {
  /** The last facts of a card, so that one that is gone can be named. Absent for an instance. `divided` absent: not known. */
  card?: { index: number; model: string; pciBusId: string; memoryBytes: number; divided?: boolean };
  /** Memory in use when nothing is on it, by instance or card. */
  idleBytes?: number;
  /** Uncorrected memory errors that are known. */
  eccErrors?: number;
  /** Errors in the kernel's log up to here are known, in microseconds since the boot. */
  xidSeenUs?: number;
  lastXid?: number;
  /** Why it is quarantined until an operator clears it. */
  quarantine?: string;
}

interface Kept {
  /** Another boot begins anew: what was left on a card is gone, and errors are counted from 0. */
  bootId: string;
  units: Record<string, GpuRecord>;
}

const FILE = 'gpus.json';

/** Records of cards by UUID, in a file of the agent, for as long as the host is up. */
export class GpuRecords {
  readonly #path: string;
  readonly #logger: Logger;
  readonly #bootId: string;
  readonly #units: Map<string, GpuRecord>;
  #written: string;

  /** What cannot be read is not known: the cards are looked at anew. */
  constructor(dataDir: string, bootId: string, logger: Logger) {
    this.#path = join(dataDir, FILE);
    this.#logger = logger;
    this.#bootId = bootId;
    const kept = this.#read();
    this.#units = new Map(kept?.bootId === bootId ? Object.entries(kept.units) : []);
    this.#written = JSON.stringify(kept);
  }

  get(uuid: string): Readonly<GpuRecord> {
    return this.#units.get(uuid) ?? {};
  }

  get all(): ReadonlyMap<string, Readonly<GpuRecord>> {
    return this.#units;
  }

  /** Changes a record; kept with the next `save`. */
  set(uuid: string, change: Partial<GpuRecord>): void {
    this.#units.set(uuid, { ...this.#units.get(uuid), ...change });
  }

  /** Ends the quarantine of a record; kept with the next `save`. */
  clear(uuid: string): void {
    const { quarantine, ...rest } = this.get(uuid);
    if (quarantine !== undefined) this.#units.set(uuid, rest);
  }

  /** Writes what has changed, as a whole or not at all. A disk that is full only costs what is known after a restart. */
  save(): void {
    const kept: Kept = { bootId: this.#bootId, units: Object.fromEntries(this.#units) };
    const text = JSON.stringify(kept);
    if (text === this.#written) return;
    try {
      mkdirSync(join(this.#path, '..'), { recursive: true, mode: 0o700 });
      writeSynced(`${this.#path}.new`, text);
      renameSync(`${this.#path}.new`, this.#path);
      this.#written = text;
    } catch (error) {
      this.#logger.warn({ path: this.#path, reason: messageOf(error) }, 'what is known of the GPUs could not be kept');
    }
  }

  #read(): Kept | undefined {
    try {
      const kept = JSON.parse(readFileSync(this.#path, 'utf8')) as Partial<Kept>;
      if (typeof kept.bootId !== 'string' || typeof kept.units !== 'object') throw new Error('it has no units');
      return kept as Kept;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      this.#logger.warn({ path: this.#path, reason: messageOf(error) }, 'what was known of the GPUs cannot be read');
      return undefined;
    }
  }
}

function writeSynced(path: string, text: string): void {
  const file = openSync(path, 'w', 0o600);
  try {
    writeFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
