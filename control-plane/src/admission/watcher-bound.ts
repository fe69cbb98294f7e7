import { HarrierError } from '@harrier/shared';

/** Readers leave when what they follow ends: nobody knows when that is. */
const RETRY_MS = 5_000;

export interface WatcherBoundOptions {
  /** Readers of one tenant at this replica, at most; 0: any number. */
  maxPerTenant: number;
  /** Told of each refusal. */
  onRefused: (reason: 'watchers') => void;
}

/** Bounds those who follow executions: each holds a stream, for as long as it likes. */
export class WatcherBound {
  readonly #options: WatcherBoundOptions;
  readonly #watchers = new Map<string, number>();

  constructor(options: WatcherBoundOptions) {
    this.#options = options;
  }

  /**
   * Before a reader begins to follow.
   * @returns what gives its place back; safe to call twice
   * @throws HarrierError resource_exhausted
   */
  enter(tenantId: string): () => void {
    const { maxPerTenant, onRefused } = this.#options;
    const watchers = this.#watchers.get(tenantId) ?? 0;
    if (maxPerTenant > 0 && watchers >= maxPerTenant) {
      onRefused('watchers');
      const message = `${watchers} readers follow executions here already; try again later`;
      throw new HarrierError('resource_exhausted', message, { retryAfterMs: RETRY_MS });
    }
    this.#watchers.set(tenantId, watchers + 1);
    let entered = true;
    return () => {
      if (!entered) return;
      entered = false;
      const left = (this.#watchers.get(tenantId) ?? 1) - 1;
      if (left > 0) this.#watchers.set(tenantId, left);
      else this.#watchers.delete(tenantId);
    };
  }
}
