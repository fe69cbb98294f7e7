/**
 * Collects what is sent within one turn of the event loop and hands it over as one batch: under load many messages share
 * a frame, and a lone message leaves in the same turn.
 */
export class BatchSender<Message> {
  #pending: Message[] = [];
  readonly #flush: (messages: Message[]) => void;

  /** @param flush is called with at least one message, in order; must not throw. */
  constructor(flush: (messages: Message[]) => void) {
    this.#flush = flush;
  }

  send(message: Message): void {
    this.#pending.push(message);
    if (this.#pending.length === 1) setImmediate(() => this.flush());
  }

  /** Sends what is pending now. */
  flush(): void {
    if (this.#pending.length === 0) return;
    const batch = this.#pending;
    this.#pending = [];
    this.#flush(batch);
  }
}
