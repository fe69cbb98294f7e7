/** Lets so many do something at once; the others wait in their order. */
export class Permits {
  readonly #count: number;
  #taken = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#count = count;
  }

  /** Nobody has one, or waits for one. */
  get unused(): boolean {
    return this.#taken === 0;
  }

  /** @throws what the work throws */
  async with<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#taken < this.#count) this.#taken++;
    else await new Promise<void>((enter) => this.#waiting.push(enter));
    try {
      return await work();
    } finally {
      // It goes from hand to hand: whoever comes now does not get before those that wait.
      const next = this.#waiting.shift();
      if (next === undefined) this.#taken--;
      else next();
    }
  }
}
