import { laneShape, type Requirement } from './requirement.ts';

/** What was said of a requirement is said again for so long. */
const KEPT_MS = 1_000;
const MAX_KEPT = 256;

/** Why executions wait, for fleets: whoever lists a thousand of them does not look at each agent a thousand times. */
export class Explanations {
  readonly #kept = new Map<string, { text: string; untilMs: number }>();

  of(requirement: Requirement, explain: () => string): string {
    const { tenantId, refusals } = requirement;
    // They are of one execution.
    if (refusals !== undefined && refusals.size > 0) return explain();
    const key = `${tenantId} ${laneShape(requirement)}`;
    const nowMs = performance.now();
    const kept = this.#kept.get(key);
    if (kept !== undefined && kept.untilMs > nowMs) return kept.text;
    const text = explain();
    if (this.#kept.size >= MAX_KEPT) this.#kept.clear();
    this.#kept.set(key, { text, untilMs: nowMs + KEPT_MS });
    return text;
  }
}
