import { FlushSchedule } from './flush-schedule.ts';

/**
 * Collects what is sent within one turn of the event loop and hands it over as one batch: under load many messages share
 * a frame, and a lone message leaves in the same turn.
 */
export class BatchSender<Message> {
  readonly #schedule: FlushSchedule;
  #pending: Message[] = [];

  /** @param transmit is called with at least one message, in order; must not throw. */
  constructor(transmit: (messages: Message[]) => void) {
    this.#schedule = new FlushSchedule(() => {
      const batch = this.#pending;
      this.#pending = [];
      if (batch.length > 0) transmit(batch);
    });
  }

  send(message: Message): void {
    this.#pending.push(message);
    this.#schedule.soon();
  }

  /** For what nobody waits for: goes with the next message, or by itself a few milliseconds later. */
  sendLater(message: Message): void {
    this.#pending.push(message);
    this.#schedule.later();
  }

  /** Sends what is pending now. */
  flush(): void {
    this.#schedule.flush();
  }
}
