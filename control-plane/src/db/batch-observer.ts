type OnWritten = (batch: string, items: number, seconds: number) => void;

/** Follows the batches of group commits. */
export class BatchObserver {
  #onWritten: OnWritten | undefined;

  /** @param listener told of each batch that was written from now on */
  onWritten(listener: OnWritten): void {
    this.#onWritten = listener;
  }

  /** The same write, told to the listener. @param batch name of what the items are */
  observed<Item, Result>(
    batch: string,
    write: (items: Item[]) => Promise<Result[]>,
  ): (items: Item[]) => Promise<Result[]> {
    return async (items) => {
      const startMs = performance.now();
      const results = await write(items);
      this.#onWritten?.(batch, items.length, (performance.now() - startMs) / 1000);
      return results;
    };
  }
}
