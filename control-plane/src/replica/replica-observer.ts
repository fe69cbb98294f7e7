import { type ReplicaBeat, removeDeadReplicas } from '../db/queries/replicas.ts';
import type { Sql } from '../db/sql.ts';
import { orphanedLeaseMs, REPLICA_VALID_MS } from './lease-rules.ts';

/**
 * Notices replicas that write no more that they live, by the monotonic clock of this process: the database's clock may be set
 * at any time, and must not make all of them dead.
 */
export class ReplicaObserver {
  readonly #seen = new Map<string, ReplicaBeat & { sinceMs: number }>();
  readonly #now: () => number;

  /** @param now milliseconds of a monotonic clock */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /**
   * Call it every second or so, on every replica.
   * @param replicas what the database has
   * @param askedMs when it was asked, by the clock of the observer
   * @returns whether one is gone that was there
   */
  look(replicas: readonly ReplicaBeat[], askedMs: number): boolean {
    const ids = new Set(replicas.map(({ id }) => id));
    const gone = [...this.#seen.keys()].filter((id) => !ids.has(id));
    for (const id of gone) this.#seen.delete(id);
    for (const replica of replicas) {
      if (this.#seen.get(replica.id)?.beat !== replica.beat)
        this.#seen.set(replica.id, { ...replica, sinceMs: askedMs });
    }
    return gone.length > 0;
  }

  /** Whether there is one that `removeDead` may remove. */
  get hasSilent(): boolean {
    return this.#silent().length > 0;
  }

  #silent() {
    const nowMs = this.#now();
    return [...this.#seen.values()].filter(({ sinceMs }) => nowMs - sinceMs >= REPLICA_VALID_MS);
  }

  /**
   * Removes those that have been silent for so long that they renew no leases any more, and gives the leases of their agents an
   * end. @returns their names
   */
  async removeDead(sql: Sql, leaseMs: number): Promise<string[]> {
    const nowMs = this.#now();
    const orphanedMs = orphanedLeaseMs(leaseMs);
    const dead = this.#silent().map((replica) => ({
      ...replica,
      leftMs: Math.max(0, orphanedMs - (nowMs - replica.sinceMs)),
    }));
    const removed = new Set(await removeDeadReplicas(sql, dead, orphanedMs));
    return dead.filter(({ id }) => removed.has(id)).map(({ name }) => name);
  }
}
