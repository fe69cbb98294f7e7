/** What rounding takes from a token that has come: who waits as told gets it. */
const ROUNDING = 1e-9;

/** Tokens that come at a rate and are kept for one second at most: a burst takes that many at once. Pure but for its state. */
export class TokenBucket {
  /** Tokens that come in a second. */
  readonly perSecond: number;
  #tokens: number;
  #atMs: number;

  constructor(perSecond: number, nowMs: number) {
    this.perSecond = perSecond;
    this.#tokens = this.#capacity;
    this.#atMs = nowMs;
  }

  /** Takes a token. @returns 0, or the milliseconds until there is one. */
  take(nowMs: number): number {
    this.#tokens = Math.min(this.#capacity, this.#tokens + ((nowMs - this.#atMs) * this.perSecond) / 1000);
    this.#atMs = nowMs;
    if (this.#tokens < 1 - ROUNDING) return ((1 - this.#tokens) * 1000) / this.perSecond;
    this.#tokens--;
    return 0;
  }

  /** At least one, for rates below one a second. */
  get #capacity(): number {
    return Math.max(1, this.perSecond);
  }
}
