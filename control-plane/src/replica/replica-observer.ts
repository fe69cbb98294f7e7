import { listReplicas, type ReplicaBeat, removeDeadReplicas } from '../db/queries/replicas.ts';
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

  /** Call it every second or so, on every replica. */
  async look(sql: Sql): Promise<void> {
    const nowMs = this.#now();
    const replicas = await listReplicas(sql);
    const ids = new Set(replicas.map(({ id }) => id));
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
    for (const replica of replicas) {
      if (this.#seen.get(replica.id)?.beat !== replica.beat) this.#seen.set(replica.id, { ...replica, sinceMs: nowMs });
    }
  }

  /**
   * Removes those that have been silent for so long that they renew no leases any more, and gives the leases of their agents an
   * end. @returns their names
   */
  async removeDead(sql: Sql, leaseMs: number): Promise<string[]> {
    const nowMs = this.#now();
    const orphanedMs = orphanedLeaseMs(leaseMs);
    const silent = [...this.#seen.values()].filter(({ sinceMs }) => nowMs - sinceMs >= REPLICA_VALID_MS);
    const dead = silent.map((replica) => ({ ...replica, leftMs: Math.max(0, orphanedMs - (nowMs - replica.sinceMs)) }));
    const removed = new Set(await removeDeadReplicas(sql, dead, orphanedMs));
    return dead.filter(({ id }) => removed.has(id)).map(({ name }) => name);
  }
}
