/** As long as a few commits take: nobody notices it where so many calls come that it pays. */
const SHORTEST_MS = 3;
const LONGEST_MS = 16;
/** By this part may the time grow that executions spend on the way, once for their insert and once for their result. */
const SHARE = 1 / 8;
/** Weight of the latest execution in the mean. */
const WEIGHT = 0.05;

/**
 * How long writes may wait for others to share their commit. The longer executions wait for a processor on the way, the more of
 * them can share a commit, the more is gained for all of them by that, and the less each of them notices.
 */
export class GatherTime {
  #meanMs = 0;

  get ms(): number {
    return Math.max(SHORTEST_MS, this.#meanMs * SHARE);
  }

  /** @param wayMs between an assignment and the end, without the preparation and the run */
  note(wayMs: number): void {
    // A long one among short ones says nothing about those that wait now.
    this.#meanMs += WEIGHT * (Math.min(wayMs, LONGEST_MS / SHARE) - this.#meanMs);
  }
}
