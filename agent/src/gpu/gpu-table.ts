import type { AttemptKey } from '../executor/executor.ts';

/**
 * What is given to an attempt: a card, or a MIG instance of a card that is divided.
 *
 *   free ──reserved──▶ reserved ──the attempt has ended──▶ checking ──nothing is left on it──▶ free
 *                          └──nothing has run──▶ free         └──something is──▶ free, and quarantined
 *
 * A quarantine is beside that: it may begin at any time, and a unit that is quarantined is given to nobody.
 */
export type UnitState = 'free' | 'reserved' | 'checking';

/** A card or a MIG instance that is there. */
export interface UnitFacts {
  uuid: string;
  /** The card itself, or the one that it is a part of. */
  cardUuid: string;
  /** Why it is never given: it is divided, or left out by the configuration. Undefined: it is. */
  notGiven: 'divided' | 'unmanaged' | undefined;
}

interface Holding {
  holder: AttemptKey;
  checking: boolean;
}

/**
 * Who has which card. It knows of reservations of cards that are not there (yet): a restarted agent hears of what runs
 * before it has looked at its cards.
 */
export class GpuTable {
  #units = new Map<string, UnitFacts>();
  readonly #holdings = new Map<string, Holding>();
  /** Reasons by the UUID of a card or an instance. */
  readonly #quarantines = new Map<string, string>();
  /** Counts reservations and releases of each unit, so that an observation can tell whether it is still of the same time. */
  readonly #changes = new Map<string, number>();

  /** What is there now. */
  setUnits(units: readonly UnitFacts[]): void {
    this.#units = new Map(units.map((unit) => [unit.uuid, unit]));
  }

  /**
   * Gives all of them to an attempt, or none. Safe to call again for the same attempt.
   * @returns why not
   */
  reserve(holder: AttemptKey, uuids: readonly string[]): string | undefined {
    for (const uuid of uuids) {
      const reason = this.#refusal(uuid, holder);
      if (reason !== undefined) return reason;
    }
    this.adopt(holder, uuids);
    return undefined;
  }

  /** An attempt has them already, whatever else is known of them. */
  adopt(holder: AttemptKey, uuids: readonly string[]): void {
    const { executionId, attempt } = holder;
    for (const uuid of uuids) {
      this.#holdings.set(uuid, { holder: { executionId, attempt }, checking: false });
      this.#changed(uuid);
    }
  }

  /** Nothing of the attempt has run: what it has is free at once. */
  giveBack(holder: AttemptKey): void {
    for (const uuid of this.#unitsOf(holder)) this.checked(uuid);
  }

  /** The attempt has ended. @returns what is to be checked before somebody else gets it */
  release(holder: AttemptKey): string[] {
    const released = this.#unitsOf(holder).filter((uuid) => this.#holdings.get(uuid)?.checking === false);
    for (const uuid of released) this.#holdings.set(uuid, { holder, checking: true });
    return released;
  }

  /** Nobody has it any more. */
  checked(uuid: string): void {
    this.#holdings.delete(uuid);
    this.#changed(uuid);
  }

  /** Given to nobody from now on. A newer reason takes the place of an older one. */
  quarantine(uuid: string, reason: string): void {
    this.#quarantines.set(uuid, reason);
  }

  lift(uuid: string): void {
    this.#quarantines.delete(uuid);
  }

  /** Why it is quarantined: itself, or the card that it is a part of. */
  quarantineOf(uuid: string): string | undefined {
    const cardUuid = this.#units.get(uuid)?.cardUuid ?? uuid;
    return this.#quarantines.get(uuid) ?? this.#quarantines.get(cardUuid);
  }

  notGivenOf(uuid: string): UnitFacts['notGiven'] {
    return this.#units.get(uuid)?.notGiven;
  }

  stateOf(uuid: string): UnitState {
    const holding = this.#holdings.get(uuid);
    if (holding === undefined) return 'free';
    return holding.checking ? 'checking' : 'reserved';
  }

  holderOf(uuid: string): AttemptKey | undefined {
    return this.#holdings.get(uuid)?.holder;
  }

  /** Differs whenever the unit was reserved or given back in between. */
  changesOf(uuid: string): number {
    return this.#changes.get(uuid) ?? 0;
  }

  /** As `changesOf`, of all units now; one that it does not have was never reserved. */
  changes(): ReadonlyMap<string, number> {
    return new Map(this.#changes);
  }

  /** Units that executions can have altogether. */
  get capacity(): number {
    return [...this.#units.values()].filter(
      ({ uuid, notGiven }) => notGiven === undefined && this.quarantineOf(uuid) === undefined,
    ).length;
  }

  #refusal(uuid: string, holder: AttemptKey): string | undefined {
    const unit = this.#units.get(uuid);
    if (unit === undefined) return `this agent has no GPU ${uuid}`;
    if (unit.notGiven === 'divided') return `GPU ${uuid} is divided into MIG instances, which are given instead`;
    if (unit.notGiven === 'unmanaged') return `GPU ${uuid} is left out by HARRIER_AGENT_GPUS`;
    const quarantine = this.quarantineOf(uuid);
    if (quarantine !== undefined) return `GPU ${uuid} is quarantined: ${quarantine}`;
    const holding = this.#holdings.get(uuid);
    if (holding === undefined) return undefined;
    const { executionId, attempt } = holding.holder;
    if (executionId === holder.executionId && attempt === holder.attempt && !holding.checking) return undefined;
    const what = holding.checking ? 'is still being checked after' : 'is in use by';
    return `GPU ${uuid} ${what} attempt ${attempt} of execution ${executionId}`;
  }

  #unitsOf({ executionId, attempt }: AttemptKey): string[] {
    return [...this.#holdings]
      .filter(([, { holder }]) => holder.executionId === executionId && holder.attempt === attempt)
      .map(([uuid]) => uuid);
  }

  #changed(uuid: string): void {
    this.#changes.set(uuid, this.changesOf(uuid) + 1);
  }
}
