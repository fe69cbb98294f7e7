import { bootNowMs, monotonicMs } from './boot-clock.ts';
import { LeaseClock } from './lease-clock.ts';

export interface LeaseEvents {
  /** It ends at another time than before. */
  onChange(): void;
  /** The link is up but renews nothing: another control plane may. */
  onStale(reason: string): void;
}

/** Between asking code to stop and the end of the lease; a short lease leaves less, so that none is stopped between beats. */
const MAX_GRACE_MS = 2_000;
const GRACE_RATIO = 1 / 4;
/** Between two tries to find a control plane, while the attempts can still be kept. */
const SEARCH_RATIO = 1 / 10;
/** Without a renewal for so much of the lease the link is given up, early enough to find another one. */
const STALE_RATIO = 1 / 2;

/** How long this agent owns its attempts, and what keeps it so. */
export class Lease {
  readonly #events: LeaseEvents;
  readonly #nowMs: () => number;
  readonly #clock = new LeaseClock();
  #leaseMs = 0;
  #beats = 0n;
  #staleTimer: NodeJS.Timeout | undefined;
  #known = false;

  constructor(events: LeaseEvents, nowMs: () => number = bootNowMs) {
    this.#events = events;
    this.#nowMs = nowMs;
  }

  /** When it ends, by the clock of the host; undefined: there is none. */
  get endMs(): number | undefined {
    return this.#clock.endMs;
  }

  /** How long it lasts yet, in milliseconds; undefined: there is none. */
  get leftMs(): number | undefined {
    return this.endMs === undefined ? undefined : this.endMs - this.#nowMs();
  }

  /** How long before its end attempts are asked to stop. */
  get graceMs(): number {
    return Math.min(MAX_GRACE_MS, Math.floor(this.#leaseMs * GRACE_RATIO));
  }

  /** How long to wait between two tries to link at most: a lease that still runs is worth some haste. */
  get patienceMs(): number {
    const runs = this.endMs !== undefined && this.#nowMs() < this.endMs;
    return runs ? this.#leaseMs * SEARCH_RATIO : Number.POSITIVE_INFINITY;
  }

  /**
   * For other processes of this host. Undefined until a control plane has answered for the first time: what a former agent
   * has told them holds until then.
   */
  get told(): { untilMs: number | undefined; graceMs: number } | undefined {
    if (!this.#known) return undefined;
    return { untilMs: this.endMs === undefined ? undefined : monotonicMs(this.endMs), graceMs: this.graceMs };
  }

  /** @param leaseMs 0: the control plane gives no leases */
  linkUp(helloSentMs: number, leaseMs: number): void {
    this.#known = true;
    this.#leaseMs = leaseMs;
    this.#beats = 0n;
    this.#clock.begin(helloSentMs, leaseMs);
    this.#watch();
    this.#events.onChange();
  }

  /** It goes on until its end. */
  linkDown(): void {
    clearTimeout(this.#staleTimer);
  }

  /** A heartbeat is about to be sent. @returns its number */
  beat(): bigint {
    this.#clock.sent(++this.#beats, this.#nowMs());
    return this.#beats;
  }

  renewed(heartbeat: bigint): void {
    if (!this.#clock.renewed(heartbeat)) return;
    this.#watch();
    this.#events.onChange();
  }

  #watch(): void {
    clearTimeout(this.#staleTimer);
    if (this.#leaseMs === 0) return;
    const ms = this.#leaseMs * STALE_RATIO;
    const reason = `the control plane has not renewed the lease for ${Math.round(ms)} ms`;
    this.#staleTimer = setTimeout(() => this.#events.onStale(reason), ms);
  }
}
