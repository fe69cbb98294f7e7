import { leaseEndMs } from '../replica/lease-rules.ts';

/** What this replica gives the agents that are linked to it. */
export interface LeaseTerms {
  leaseMs: number;
  /** Whether leases may be renewed now. */
  valid: () => boolean;
}

/** The lease of the agent of one link, as the control plane counts it: from the newest renewal that it sent. */
export class SessionLease {
  readonly #terms: LeaseTerms;
  readonly #onEnd: () => void;
  #renewedMs: number;
  #timer: NodeJS.Timeout | undefined;

  /** Begins now. @param onEnd it ended while the link was open */
  constructor(terms: LeaseTerms, onEnd: () => void) {
    this.#terms = terms;
    this.#onEnd = onEnd;
    this.#renewedMs = performance.now();
    this.#arm();
  }

  /** @returns whether it was renewed, and the agent may be told so at once */
  renew(): boolean {
    if (!this.#terms.valid()) return false;
    this.#renewedMs = performance.now();
    return true;
  }

  /** How long it lasts yet; 0 when it has ended. */
  get leftMs(): number {
    return Math.max(0, leaseEndMs(this.#renewedMs, this.#terms.leaseMs) - performance.now());
  }

  /** The link is gone: nobody is told of the end any more. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  #arm(): void {
    this.#timer = setTimeout(() => {
      if (this.leftMs > 0) this.#arm();
      else this.#onEnd();
    }, this.leftMs + 1);
    this.#timer.unref();
  }
}
