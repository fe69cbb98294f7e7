/** Wakes everybody who waits; what changed is looked up in the state that it belongs to. */
export class ChangeSignal {
  #waiters = new Set<() => void>();

  notify(): void {
    if (this.#waiters.size === 0) return;
    const waiters = this.#waiters;
    this.#waiters = new Set();
    for (const wake of waiters) wake();
  }

  /** Resolves at the next change, or after `timeoutMs`; rejects with the signal's reason when it is aborted. */
  wait(signal: AbortSignal, timeoutMs?: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const finish = () => {
        clearTimeout(timer);
        this.#waiters.delete(finish);
        signal.removeEventListener('abort', abort);
        resolve();
      };
      const abort = () => {
        clearTimeout(timer);
        this.#waiters.delete(finish);
        reject(signal.reason);
      };
      const timer = timeoutMs === undefined ? undefined : setTimeout(finish, timeoutMs);
      signal.addEventListener('abort', abort, { once: true });
      this.#waiters.add(finish);
    });
  }
}
