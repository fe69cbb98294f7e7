/**
 * When a lease ends: so long after the newest message to the control plane that it has answered. That moment is always
 * before the one from which the control plane counts, whatever the network does, so the agent knows of the end first.
 *
 * All times come from the caller, from one clock that never goes back.
 */
export class LeaseClock {
  #leaseMs = 0;
  #endMs: number | undefined;
  /** Heartbeats without an answer, oldest first. */
  #sent: { number: bigint; atMs: number }[] = [];

  /** When the lease ends; undefined: there is none. */
  get endMs(): number | undefined {
    return this.#endMs;
  }

  /**
   * The control plane has answered the hello of a new session, in which heartbeats count from 1 again.
   * @param leaseMs 0: this control plane gives no leases
   */
  begin(helloSentMs: number, leaseMs: number): void {
    this.#leaseMs = leaseMs;
    this.#endMs = leaseMs === 0 ? undefined : helloSentMs + leaseMs;
    this.#sent = [];
  }

  /** A heartbeat is about to be sent. */
  sent(number: bigint, atMs: number): void {
    if (this.#leaseMs > 0) this.#sent.push({ number, atMs });
  }

  /** The control plane has answered a heartbeat. @returns whether the lease ends later than before */
  renewed(number: bigint): boolean {
    const at = this.#sent.findIndex((beat) => beat.number === number);
    const beat = this.#sent[at];
    if (beat === undefined) return false;
    this.#sent.splice(0, at + 1);
    this.#endMs = beat.atMs + this.#leaseMs;
    return true;
  }
}
