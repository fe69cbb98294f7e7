/** How long what is not urgent waits for company: an acknowledgement that nobody waits for should not wake a process. */
const LATER_MS = 5;

/** Decides when collected messages leave: at the end of this turn of the event loop, or, when none is urgent, a little later. */
export class FlushSchedule {
  readonly #flush: () => void;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(flush: () => void) {
    this.#flush = flush;
  }

  /** Something urgent was added. */
  soon(): void {
    this.#immediate ??= setImmediate(() => this.flush());
  }

  /** Something was added that can wait for company. */
  later(): void {
    if (this.#immediate === undefined) this.#timer ??= setTimeout(() => this.flush(), LATER_MS);
  }

  /** Flushes now; nothing is scheduled afterwards. */
  flush(): void {
    clearImmediate(this.#immediate);
    clearTimeout(this.#timer);
    this.#immediate = undefined;
    this.#timer = undefined;
    this.#flush();
  }
}
