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
}

/**
 * Group commit: a lone item is written at once; items that come while `concurrency` writes are under way wait and share the
 * next one. When a batch fails, its items are written one by one, so that one bad item does not fail its neighbours.
 */
export class GroupCommit<Item, Result> {
  readonly #options: GroupCommitOptions<Item, Result>;
  #waiting: Waiter<Item, Result>[] = [];
  #active = 0;

  constructor(options: GroupCommitOptions<Item, Result>) {
    this.#options = options;
  }

  /** Resolves when the item is committed. */
  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      this.#pump();
    });
  }

  #pump(): void {
    while (this.#active < this.#options.concurrency && this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, this.#options.maxItems);
      this.#active++;
      void this.#write(batch).finally(() => {
        this.#active--;
        this.#pump();
      });
    }
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
