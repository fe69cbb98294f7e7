import { messageOf } from '@harrier/shared';
import type { Health } from './decide.ts';
import { HealthTally } from './health-tally.ts';
import type { HealthCheck } from './service-definition.ts';

/** Statuses of a healthy service, redirections included. */
const OK = { min: 200, max: 399 };

/** Asks a URL again and again while one container runs, and counts what it answers. */
export class HttpChecks {
  readonly containerId: string;
  readonly #tally: HealthTally;
  readonly #check: HealthCheck;
  readonly #url: string;
  readonly #startedAtMs: number;
  readonly #onChange: () => void;
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  /** @param startedAtMs of the container, in milliseconds since 1970 */
  constructor(containerId: string, startedAtMs: number, check: HealthCheck, url: string, onChange: () => void) {
    this.containerId = containerId;
    this.#check = check;
    this.#url = url;
    this.#startedAtMs = startedAtMs;
    this.#onChange = onChange;
    this.#tally = new HealthTally(check);
    // At once, so that a service that was taken over is soon known to be healthy.
    void this.#ask();
  }

  get health(): Health {
    return this.#tally.health;
  }

  get message(): string {
    return this.#tally.message;
  }

  /** Whether these are the checks of that run of that container. */
  isOf(containerId: string, startedAtMs: number, check: HealthCheck): boolean {
    const same = JSON.stringify(check) === JSON.stringify(this.#check);
    return same && containerId === this.containerId && startedAtMs === this.#startedAtMs;
  }

  /** Safe to call twice. */
  close(): void {
    this.#stop.abort();
    clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    const before = `${this.health} ${this.message}`;
    const problem = await this.#problem();
    if (this.#stop.signal.aborted) return;
    this.#tally.add(problem, Date.now() - this.#startedAtMs);
    this.#timer = setTimeout(() => void this.#ask(), this.#check.intervalMs);
    if (`${this.health} ${this.message}` !== before) this.#onChange();
  }

  async #problem(): Promise<string | undefined> {
    const timeout = AbortSignal.timeout(this.#check.timeoutMs);
    try {
      const signal = AbortSignal.any([this.#stop.signal, timeout]);
      const response = await fetch(this.#url, { signal, redirect: 'manual' });
      await response.body?.cancel();
      const isOk = response.status >= OK.min && response.status <= OK.max;
      return isOk ? undefined : `${this.#url} answers ${response.status}`;
    } catch (error) {
      if (timeout.aborted) return `${this.#url} does not answer in ${this.#check.timeoutMs} ms`;
      const cause = (error as Error).cause ?? error;
      return `${this.#url} cannot be reached: ${messageOf(cause)}`;
    }
  }
}
