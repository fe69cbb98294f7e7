import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '@harrier/shared';
import type { AttemptKey } from '../executor/executor.ts';
import type { KernelLog } from '../hardware/kernel-log.ts';
import { NO_FIGURES, type NvidiaCard, type NvidiaReading } from '../hardware/nvidia-card.ts';
import type { NvidiaAnswer, NvidiaSmi } from '../hardware/nvidia-smi.ts';
import { fatalXid, pciKey } from '../hardware/xid.ts';
import { formerCard } from './former-card.ts';
import { idleBytesOf, leftOn, sicknessOf, type UnitReading, unitsOf } from './gpu-judgement.ts';
import { type GpuFacts, gpuFacts } from './gpu-message.ts';
import type { GpuRecords } from './gpu-records.ts';
import { type GpuSelection, isSelected } from './gpu-selection.ts';
import { GpuTable } from './gpu-table.ts';

export interface GpuTimings {
  /** How often everything is asked, beside what changes all the time. */
  lookEveryMs: number;
  /** How long a card may still hold something of an attempt that has ended: the driver takes its time. */
  leftMs: number;
  /** Between two looks at such a card. */
  leftEveryMs: number;
  /** Between two tries when the driver is silent. */
  silentEveryMs: number;
}

/** Nobody knows what is on it, nor how it is divided. */
const NOT_LOOKED_AT = 'not looked at since the agent was started';
const NOT_NAMED = 'nvidia-smi -L does not name its MIG instances';
const TIMINGS: GpuTimings = { lookEveryMs: 60_000, leftMs: 20_000, leftEveryMs: 250, silentEveryMs: 5_000 };

export interface GpuKeeperOptions {
  tool: Pick<NvidiaSmi, 'look' | 'figures'>;
  kernelLog: Pick<KernelLog, 'news'>;
  records: GpuRecords;
  selection: GpuSelection;
  /**
   * What others wait for has changed: a card is free, or quarantined, or no longer, or what `cardOf` and `knowsInstances`
   * answer.
   */
  onChange: () => void;
  logger: Logger;
  timings?: Partial<GpuTimings>;
}

/** What a look has told of a unit. */
type OnUnit =
  /** Nothing is on it, or its card is lost, which is quarantined. */
  | { kind: 'clean' }
  | { kind: 'left'; on: string }
  /** Its card was not read as a whole: nothing is known of it. */
  | { kind: 'unread' }
  /** Its card is there and has no such unit: it was divided in another way, or the driver is not ready yet. */
  | { kind: 'missing' };

/**
 * The NVIDIA cards of this host: who has them, and whether they are fit for use. One that is not is given to nobody, alone:
 *
 * - what an attempt has left on it, errors of the card itself, and its loss stand until an operator clears it, or the host is
 *   started again;
 * - that the driver is silent, that this agent has not looked at it yet, and that somebody else uses it, is over when it is.
 */
export class GpuKeeper {
  readonly #options: GpuKeeperOptions;
  readonly #timings: GpuTimings;
  readonly #table = new GpuTable();
  /** All that were seen since the boot, with their last words. */
  readonly #cards = new Map<string, NvidiaCard>();
  /** Those that were there at the last look. */
  #listed: ReadonlySet<string> = new Set();
  /** There was a look that told of all cards, or there is no driver. */
  #hasLooked = false;
  /** Of these the last look did not tell which instance is which. */
  readonly #unread = new Set<string>();
  /** Quarantines that end by themselves. */
  readonly #passing = new Map<string, string>();
  readonly #closing = new AbortController();
  #driver = { driverVersion: '', cudaVersion: '' };
  #lookDueMs = Number.NEGATIVE_INFINITY;
  /** A look that has not begun yet, and the one before. */
  #nextLook: Promise<boolean> | undefined;
  #lastLook: Promise<unknown> = Promise.resolve();
  #silence = '';
  #told = '';

  constructor(options: GpuKeeperOptions) {
    this.#options = options;
    this.#timings = { ...TIMINGS, ...options.timings };
    for (const [uuid, { card, quarantine }] of options.records.all) {
      if (card !== undefined) {
        this.#cards.set(uuid, formerCard(uuid, card));
        this.#passing.set(uuid, NOT_LOOKED_AT);
      }
      const reason = quarantine ?? this.#passing.get(uuid);
      if (reason !== undefined) this.#table.quarantine(uuid, reason);
    }
    this.#setUnits();
  }

  // For the hardware.

  /** Asks for what has changed, and for everything when that is due. */
  async refresh(): Promise<void> {
    const isDue = performance.now() >= this.#lookDueMs || this.#silence !== '' || !(await this.#figures());
    if (isDue) await this.#look();
    await this.#readKernelLog();
    this.#settle();
  }

  list(): GpuFacts[] {
    const cards = [...this.#cards.values()].sort((a, b) => a.index - b.index);
    return cards.map((card) => {
      const lastXid = this.#options.records.get(card.uuid).lastXid ?? 0;
      // Its last figures are none of now.
      const isTold = this.#silence === '' && this.#listed.has(card.uuid);
      const now = isTold ? card : { ...card, figures: NO_FIGURES, processes: [] };
      return gpuFacts(now, { table: this.#table, ...this.#driver, lastXid });
    });
  }

  /** Cards and instances that executions can have altogether. */
  get capacity(): number {
    return this.#table.capacity;
  }

  /** The card that is one or has one as a part. */
  cardOf(uuid: string): NvidiaCard | undefined {
    return (
      this.#cards.get(uuid) ?? [...this.#cards.values()].find((card) => card.instances.some((one) => one.uuid === uuid))
    );
  }

  /** The driver has told the instances of all cards. */
  get knowsInstances(): boolean {
    return this.#hasLooked && this.#unread.size === 0;
  }

  // For attempts.

  /** Gives all of them to an attempt, or none, and says why not. */
  reserve(holder: AttemptKey, uuids: readonly string[]): string | undefined {
    const refusal = this.#table.reserve(holder, uuids);
    if (refusal === undefined) this.#settle();
    return refusal;
  }

  /** An attempt of a former agent has them. */
  adopt(holder: AttemptKey, uuids: readonly string[]): void {
    this.#table.adopt(holder, uuids);
    this.#settle();
  }

  /** Nothing of the attempt has run. */
  giveBack(holder: AttemptKey): void {
    this.#table.giveBack(holder);
    this.#settle();
  }

  /**
   * The attempt has ended: what it had is free when nothing is left on it.
   * @param gone resolves when what it ran in is gone, which is then looked for; absent: it is
   */
  release(holder: AttemptKey, gone: Promise<void> = Promise.resolve()): void {
    const released = this.#table.release(holder);
    if (released.length === 0) return;
    gone
      .then(() => this.#check(holder, released))
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#options.logger.error({ err: error }, 'cards could not be checked');
      });
  }

  /**
   * Takes a card back into use, if it is fit for that.
   * @returns the card as it is now; undefined when there is none
   */
  async clear(uuid: string): Promise<GpuFacts | undefined> {
    const { records, logger } = this.#options;
    const answered = await this.#freshLook();
    const card = this.cardOf(uuid);
    if (card === undefined) return undefined;
    const before = records.get(uuid).quarantine;
    if (answered && before !== undefined && !this.#unread.has(card.uuid)) {
      const still = this.#stillWrong(uuid, card);
      if (still === undefined) this.#lift(uuid);
      else this.#quarantine(uuid, still);
      logger.info({ gpu: uuid, before, still }, still === undefined ? 'GPU cleared' : 'GPU not cleared');
    }
    this.#settle();
    return this.list().find((facts) => facts.uuid === card.uuid);
  }

  /** Leaves everything to a later agent. */
  close(): void {
    this.#closing.abort();
    this.#options.records.save();
  }

  // Looks.

  /** A look that begins from now on. Answers whether the driver has answered. */
  #freshLook(): Promise<boolean> {
    this.#nextLook ??= this.#lastLook.then(() => {
      this.#nextLook = undefined;
      return this.#look();
    });
    this.#lastLook = this.#nextLook.catch(() => {});
    return this.#nextLook;
  }

  async #look(): Promise<boolean> {
    const before = this.#table.changes();
    const answer = await this.#options.tool.look([...this.#cards.values()]);
    if (answer.kind === 'answered') {
      this.#silence = '';
      this.#absorb(answer.value, answer.complaint, before);
      const isWhole = this.#unread.size === 0;
      this.#lookDueMs = isWhole ? performance.now() + this.#timings.lookEveryMs : Number.NEGATIVE_INFINITY;
    } else {
      this.#silent(answer);
    }
    return answer.kind === 'answered';
  }

  /** Answers whether that was enough. */
  async #figures(): Promise<boolean> {
    const answer = await this.#options.tool.figures();
    if (answer.kind !== 'answered' || answer.value === 'unsupported') return false;
    for (const { uuid, index, figures } of answer.value) {
      const card = this.#cards.get(uuid);
      if (card === undefined || !this.#listed.has(uuid)) return false;
      card.index = index;
      card.figures = figures;
      this.#examine(card);
    }
    return answer.value.length === this.#listed.size;
  }

  #absorb(reading: NvidiaReading, complaint: string, before: ReadonlyMap<string, number>): void {
    const { driverVersion, cudaVersion, cards } = reading;
    if (driverVersion !== '') this.#driver = { driverVersion, cudaVersion };
    this.#hasLooked = true;
    this.#listed = new Set(cards.map(({ uuid }) => uuid));
    this.#unread.clear();
    for (const card of cards) {
      const former = this.#cards.get(card.uuid);
      // The order is that of those that answer.
      const index = complaint === '' ? card.index : (former?.index ?? card.index);
      const isNamed = !card.divided || card.instances.every(({ uuid }) => uuid !== '');
      if (!isNamed) this.#unread.add(card.uuid);
      // Those that it had stay known, and who has them.
      const instances = isNamed ? card.instances : (former?.instances ?? []);
      this.#cards.set(card.uuid, { ...card, index, instances });
      const { model, pciBusId, memoryBytes, divided } = card;
      this.#options.records.set(card.uuid, { card: { index, model, pciBusId, memoryBytes, divided } });
    }
    this.#passing.clear();
    this.#setUnits();
    for (const card of this.#cards.values()) {
      if (this.#listed.has(card.uuid)) {
        this.#examine(card);
        if (this.#unread.has(card.uuid)) this.#passing.set(card.uuid, NOT_NAMED);
        else for (const unit of unitsOf(card)) this.#observe(unit, before);
      } else {
        const said = complaint === '' ? '' : `: ${complaint}`;
        this.#quarantineOnce(card.uuid, `the driver does not list it any more${said}`);
      }
    }
  }

  #silent(answer: NvidiaAnswer<NvidiaReading>): void {
    const reason = answer.kind === 'silent' ? answer.reason : 'nvidia-smi is not there any more';
    if (this.#cards.size === 0) {
      // A host without cards, or whose driver is not loaded.
      if (answer.kind === 'silent' && this.#silence !== reason) {
        this.#options.logger.warn({ reason }, 'GPUs cannot be looked for');
      }
      this.#silence = answer.kind === 'silent' ? reason : '';
      this.#hasLooked ||= answer.kind === 'absent';
      return;
    }
    if (this.#silence !== reason) this.#options.logger.error({ reason }, 'the GPU driver is silent: no card is given');
    this.#silence = reason;
    for (const uuid of this.#cards.keys()) this.#passing.set(uuid, reason);
  }

  /** What a card says of itself. */
  #examine(card: NvidiaCard): void {
    const { records } = this.#options;
    const sickness = sicknessOf(card, records.get(card.uuid).eccErrors);
    const { uncorrectedEccErrors } = card.figures;
    if (uncorrectedEccErrors !== undefined) records.set(card.uuid, { eccErrors: uncorrectedEccErrors });
    if (sickness !== undefined) this.#quarantineOnce(card.uuid, sickness);
  }

  /** What is on a unit that nobody has: only if nobody had it at any time of the look. */
  #observe(unit: UnitReading, before: ReadonlyMap<string, number>): void {
    const { records } = this.#options;
    const { uuid } = unit;
    if (this.#table.stateOf(uuid) !== 'free' || (before.get(uuid) ?? 0) !== this.#table.changesOf(uuid)) return;
    const { idleBytes } = records.get(uuid);
    const on = leftOn(unit, idleBytes);
    if (on === undefined) records.set(uuid, { idleBytes: idleBytesOf(unit, idleBytes) });
    else this.#passing.set(uuid, `in use by others than Harrier: ${on}`);
  }

  async #readKernelLog(): Promise<void> {
    if (this.#cards.size === 0) return;
    const { kernelLog, records } = this.#options;
    const events = (await kernelLog.news()) ?? [];
    for (const card of this.#cards.values()) {
      const seenUs = records.get(card.uuid).xidSeenUs ?? -1;
      const news = events.filter(({ pci, atUs }) => pci === pciKey(card.pciBusId) && atUs > seenUs);
      const last = news.at(-1);
      if (last === undefined) continue;
      records.set(card.uuid, { xidSeenUs: last.atUs, lastXid: last.code });
      this.#options.logger.warn({ gpu: card.uuid, xid: last.code, text: last.text }, 'the driver reports an error');
      const fatal = news.map(fatalXid).find((reason) => reason !== undefined);
      if (fatal !== undefined) this.#quarantineOnce(card.uuid, fatal);
    }
  }

  // After an attempt.

  async #check({ executionId, attempt }: AttemptKey, released: readonly string[]): Promise<void> {
    const { signal } = this.#closing;
    const { leftMs, leftEveryMs, silentEveryMs } = this.#timings;
    let patienceMs = leftMs;
    const left = new Set(released);
    while (!signal.aborted) {
      const beginMs = performance.now();
      // A driver that is silent says nothing of what is left; nobody gets the card before it does.
      const answered = await this.#freshLook();
      const isOver = patienceMs <= 0;
      let isRead = false;
      for (const uuid of left) {
        const found: OnUnit = answered ? this.#onUnit(uuid) : { kind: 'unread' };
        if (found.kind === 'unread') continue;
        isRead = true;
        if (found.kind !== 'clean' && !isOver) continue;
        left.delete(uuid);
        this.#table.checked(uuid);
        if (found.kind !== 'left') continue;
        this.#quarantine(uuid, `attempt ${attempt} of execution ${executionId} has left something on it: ${found.on}`);
      }
      this.#settle();
      if (left.size === 0) return;
      await delay(isRead ? leftEveryMs : silentEveryMs, undefined, { signal });
      if (isRead) patienceMs -= performance.now() - beginMs;
    }
  }

  #onUnit(uuid: string): OnUnit {
    const card = this.cardOf(uuid);
    if (card === undefined) return { kind: this.#unread.size > 0 ? 'unread' : 'missing' };
    if (!this.#listed.has(card.uuid)) return { kind: 'clean' };
    if (this.#unread.has(card.uuid)) return { kind: 'unread' };
    const unit = unitsOf(card).find((one) => one.uuid === uuid);
    if (unit === undefined) return { kind: 'missing' };
    const on = leftOn(unit, this.#options.records.get(uuid).idleBytes);
    return on === undefined ? { kind: 'clean' } : { kind: 'left', on };
  }

  /** Why a card cannot be cleared. Errors that were told are no reason any more: that is what clearing means. */
  #stillWrong(uuid: string, card: NvidiaCard): string | undefined {
    if (!this.#listed.has(card.uuid)) return 'the driver does not list it';
    if (card.recovery !== '') return `the driver asks for recovery: ${card.recovery}`;
    if (this.#table.stateOf(uuid) !== 'free') return undefined;
    const found = this.#onUnit(uuid);
    return found.kind === 'left' ? `something is still on it: ${found.on}` : undefined;
  }

  // Quarantine.

  /** The first reason stands: what comes later is often its consequence. */
  #quarantineOnce(uuid: string, reason: string): void {
    if (this.#options.records.get(uuid).quarantine === undefined) this.#quarantine(uuid, reason);
  }

  #quarantine(uuid: string, reason: string): void {
    this.#options.records.set(uuid, { quarantine: reason });
    this.#options.logger.error({ gpu: uuid, reason }, 'GPU quarantined');
  }

  #lift(uuid: string): void {
    this.#options.records.clear(uuid);
  }

  #setUnits(): void {
    const { selection } = this.#options;
    const units = [...this.#cards.values()].flatMap((card) => {
      const cardUuid = card.uuid;
      const uuids = card.divided ? [cardUuid, ...unitsOf(card).map(({ uuid }) => uuid)] : [cardUuid];
      return uuids.map((uuid) => {
        const unmanaged = isSelected(selection, uuid, cardUuid) ? undefined : 'unmanaged';
        const notGiven = card.divided && uuid === cardUuid ? 'divided' : unmanaged;
        return { uuid, cardUuid, notGiven } as const;
      });
    });
    this.#table.setUnits(units);
  }

  /** Brings quarantines into the table, keeps what must be kept, and tells of what others wait for. */
  #settle(): void {
    const { records, onChange } = this.#options;
    const all = new Set([...this.#cards.keys(), ...records.all.keys(), ...this.#passing.keys()]);
    for (const uuid of all) {
      const reason = records.get(uuid).quarantine ?? this.#passing.get(uuid);
      if (reason === undefined) this.#table.lift(uuid);
      else this.#table.quarantine(uuid, reason);
    }
    records.save();
    const units = [...all].map((uuid) => [uuid, this.#table.stateOf(uuid), this.#table.quarantineOf(uuid)]);
    const parts = [...this.#cards.values()].map((card) => card.instances.map(({ uuid }) => uuid));
    const now = JSON.stringify([units, parts, this.knowsInstances]);
    if (now === this.#told) return;
    this.#told = now;
    onChange();
  }
}
