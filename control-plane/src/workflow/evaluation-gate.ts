import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { Permits } from './permits.ts';

/** Evaluations in one turn of the event loop, together; one that begins may still take its whole budget. */
const TURN_MS = 5;
/** What counts as nothing. */
const FREE_MS = 1;
/** A tenant may take the event loop for one part in so many. */
const SHARE = 5;
/** Tenants that are remembered before those whose pause is over are forgotten. */
const REMEMBERED = 1_000;
/** Evaluations whose values are in memory at once: of a tenant, and of all. */
const TENANT_AT_ONCE = 2;
const AT_ONCE = 8;

/**
 * Expressions are evaluated where leases are renewed and calls are answered: one after the other, with turns of the event loop
 * between them, and with pauses for a tenant whose expressions take long. What they need is read for few of them at a time, so
 * that many large values are not in memory together.
 */
export class EvaluationGate {
  #usedMs = 0;
  /** When a tenant may evaluate again, by `performance.now()`. */
  readonly #freeAtMs = new Map<string, number>();
  readonly #permits = new Permits(AT_ONCE);
  readonly #permitsOf = new Map<string, Permits>();

  /** @param prepare reads what is needed, and answers the work. @throws what either throws */
  async run<Result>(tenantId: string, prepare: () => Promise<() => Result>): Promise<Result> {
    return await this.#withPermitOf(tenantId, async () => {
      // Pauses are waited for without values, and without what others wait for.
      while (this.#mustWait(tenantId)) await this.#wait(tenantId);
      return await this.#permits.with(async () => {
        const work = await prepare();
        while (this.#mustWait(tenantId)) await this.#wait(tenantId);
        return this.#measured(tenantId, work);
      });
    });
  }

  async #withPermitOf<Result>(tenantId: string, work: () => Promise<Result>): Promise<Result> {
    const permits = this.#permitsOf.get(tenantId) ?? new Permits(TENANT_AT_ONCE);
    this.#permitsOf.set(tenantId, permits);
    try {
      return await permits.with(work);
    } finally {
      if (permits.unused) this.#permitsOf.delete(tenantId);
    }
  }

  /** Whether the tenant has to pause, or enough was evaluated in this turn of the event loop. */
  #mustWait(tenantId: string): boolean {
    return this.#usedMs >= TURN_MS || (this.#freeAtMs.get(tenantId) ?? 0) > performance.now();
  }

  async #wait(tenantId: string): Promise<void> {
    const waitMs = (this.#freeAtMs.get(tenantId) ?? 0) - performance.now();
    await (waitMs > 0 ? pause(waitMs) : nextTurn());
  }

  #measured<Result>(tenantId: string, work: () => Result): Result {
    const startMs = performance.now();
    try {
      return work();
    } finally {
      this.#took(tenantId, performance.now() - startMs);
    }
  }

  #took(tenantId: string, tookMs: number): void {
    if (this.#usedMs === 0) {
      setImmediate(() => {
        this.#usedMs = 0;
      });
    }
    this.#usedMs += tookMs;
    if (tookMs < FREE_MS) return;
    const nowMs = performance.now();
    if (this.#freeAtMs.size >= REMEMBERED) {
      for (const [other, freeAtMs] of this.#freeAtMs) if (freeAtMs <= nowMs) this.#freeAtMs.delete(other);
    }
    this.#freeAtMs.set(tenantId, nowMs + tookMs * (SHARE - 1));
  }
}
