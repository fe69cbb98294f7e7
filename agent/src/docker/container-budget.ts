/** Gives a place back. Safe to call twice. */
export type ReleasePlace = () => void;

/** Bounds the containers that run at once, of all kinds together; who comes when all places are taken waits in order. */
export class ContainerBudget {
  readonly places: number;
  #used = 0;
  readonly #waiting = new Set<() => void>();
  #makeRoom: () => boolean = () => false;

  constructor(places: number) {
    this.places = places;
  }

  /** Places taken. */
  get used(): number {
    return this.#used;
  }

  /** Whether somebody waits for a place. */
  get contested(): boolean {
    return this.#waiting.size > 0;
  }

  /** @param makeRoom gives up a container that nobody uses, and its place; answers whether there was one */
  onFull(makeRoom: () => boolean): void {
    this.#makeRoom = makeRoom;
  }

  /** Takes a place, when there is one for it. @throws the signal's reason when aborted while it waits */
  async take(signal: AbortSignal): Promise<ReleasePlace> {
    signal.throwIfAborted();
    if (this.#used >= this.places || this.#waiting.size > 0) {
      const turn = Promise.withResolvers<void>();
      const wake = (): void => turn.resolve();
      const abort = (): void => {
        if (this.#waiting.delete(wake)) turn.reject(signal.reason);
      };
      this.#waiting.add(wake);
      signal.addEventListener('abort', abort, { once: true });
      this.#makeRoom();
      this.#admit();
      try {
        // Whoever is woken has its place already.
        await turn.promise;
      } finally {
        signal.removeEventListener('abort', abort);
      }
    } else {
      this.#used++;
    }
    return this.#releaseOnce();
  }

  /** A place for a container that runs already, also when all are taken. */
  adopt(): ReleasePlace {
    this.#used++;
    return this.#releaseOnce();
  }

  #releaseOnce(): ReleasePlace {
    let released = false;
    return () => {
      if (released) return;
      released = true;
      this.#used--;
      this.#admit();
    };
  }

  #admit(): void {
    for (const wake of this.#waiting) {
      if (this.#used >= this.places) return;
      this.#waiting.delete(wake);
      this.#used++;
      wake();
    }
  }
}
