interface Waiter<Item, Result> {
  item: Item;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

export interface GroupCommitOptions<Item, Result> {
  /** Writes the items in one statement and answers one result per item, in order. */
  write: (items: Item[]) => Promise<Result[]>;
  /** Batches under way at once. */
  concurrency: number;
  /** Items in a batch, at most. */
  maxItems: number;
  /** A batch ends before the item with which it would be larger than this; absent: items are small. */
  size?: { of: (item: Item) => number; max: number };
  /** Under load, how long items are gathered before they are written; absent: not at all. */
  gatherMs?: () => number;
}

/** Items that must be expected within the gathering time for it to pay: a commit costs the server about as much as ten rows. */
const GATHER_ITEMS = 4;
/** A pause that ends every load. */
const MAX_INTERVAL_MS = 20;
/** Weight of the latest interval in the mean of the intervals between items. */
const INTERVAL_WEIGHT = 0.05;

/**
 * Group commit: a lone item is written at once; items that come while `concurrency` writes are under way wait and share the
 * next one, and under load a write waits a moment for more. When a batch fails, its items are written one by one, so that
 * one bad item does not fail its neighbours.
 */
export class GroupCommit<Item, Result> {
  readonly #options: GroupCommitOptions<Item, Result>;
  #waiting: Waiter<Item, Result>[] = [];
  #active = 0;
  #gathering: NodeJS.Timeout | undefined;
  #lastAddMs = Number.NEGATIVE_INFINITY;
  /** Mean time between items of late. */
  #intervalMs = Number.POSITIVE_INFINITY;

  constructor(options: GroupCommitOptions<Item, Result>) {
    this.#options = options;
  }

  /** Items that wait for their write to begin. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Resolves when the item is committed. */
  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      this.#noteArrival();
      this.#pump();
    });
  }

  #noteArrival(): void {
    const nowMs = performance.now();
    // A pause says that the load is over; it must not linger in the mean.
    const interval = Math.min(nowMs - this.#lastAddMs, MAX_INTERVAL_MS);
    this.#lastAddMs = nowMs;
    this.#intervalMs =
      interval === MAX_INTERVAL_MS || this.#intervalMs > MAX_INTERVAL_MS
        ? MAX_INTERVAL_MS
        : this.#intervalMs + INTERVAL_WEIGHT * (interval - this.#intervalMs);
  }

  #pump(): void {
    const { concurrency, maxItems } = this.#options;
    if (this.#gathering !== undefined || this.#waiting.length === 0 || this.#active >= concurrency) return;
    const gatherMs = this.#options.gatherMs?.() ?? 0;
    if (this.#intervalMs * GATHER_ITEMS > gatherMs || this.#waiting.length >= maxItems) {
      this.#writeWaiting();
      return;
    }
    this.#gathering = setTimeout(() => {
      this.#gathering = undefined;
      this.#noteGathered(gatherMs);
      this.#writeWaiting();
    }, gatherMs);
  }

  /** What the wait has brought counts as much as the mean: items that come one after the other are not kept from coming. */
  #noteGathered(gatherMs: number): void {
    this.#intervalMs = (this.#intervalMs + gatherMs / this.#waiting.length) / 2;
  }

  #writeWaiting(): void {
    const { concurrency } = this.#options;
    while (this.#active < concurrency && this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, this.#batchLength());
      this.#active++;
      void this.#write(batch).finally(() => {
        this.#active--;
        this.#pump();
      });
    }
  }

  #batchLength(): number {
    const { maxItems, size } = this.#options;
    if (size === undefined) return maxItems;
    let sum = 0;
    const tooLarge = this.#waiting.slice(0, maxItems).findIndex(({ item }, i) => {
      sum += size.of(item);
      return i > 0 && sum > size.max;
    });
    return tooLarge < 0 ? maxItems : tooLarge;
  }

  async #write(batch: Waiter<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#options.write(batch.map((waiter) => waiter.item));
      batch.forEach((waiter, index) => {
        waiter.resolve(results[index] as Result);
      });
    } catch (error) {
      if (batch.length === 1) batch[0]?.reject(error);
      else for (const waiter of batch) await this.#write([waiter]);
    }
  }
}
