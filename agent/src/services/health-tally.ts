import type { Health } from './decide.ts';

export interface TallyRules {
  retries: number;
  startPeriodMs: number;
}

/** Counts the answers of one container to the agent's own checks, as the engine counts those of its. */
export class HealthTally {
  readonly #rules: TallyRules;
  #failures = 0;
  #health: Health = 'starting';
  #message = '';

  constructor(rules: TallyRules) {
    this.#rules = rules;
  }

  get health(): Health {
    return this.#health;
  }

  /** What the last check found; empty: nothing wrong. */
  get message(): string {
    return this.#message;
  }

  /**
   * @param problem undefined: the check succeeded
   * @param ageMs since the container was started
   */
  add(problem: string | undefined, ageMs: number): void {
    this.#message = problem ?? '';
    if (problem === undefined) {
      this.#failures = 0;
      this.#health = 'healthy';
      return;
    }
    // Until the first success a service may take its time.
    if (this.#health === 'starting' && ageMs < this.#rules.startPeriodMs) return;
    if (++this.#failures >= this.#rules.retries) this.#health = 'unhealthy';
  }
}
