import { measureReattach } from './recovery-reattach.ts';
import { measureReplicas } from './recovery-replicas.ts';
import { measureTakeover } from './recovery-takeover.ts';

const PARTS = { reattach: measureReattach, takeover: measureTakeover, replicas: measureReplicas };

/**
 * How long it takes until everything goes on when something has died.
 * @param chosen names of parts; none: all
 */
export async function benchRecovery(_python: string, chosen: readonly string[]): Promise<Record<string, number>> {
  const figures: Record<string, number> = {};
  for (const [part, measure] of Object.entries(PARTS)) {
    if (chosen.length === 0 || chosen.includes(part)) Object.assign(figures, await measure());
  }
  return figures;
}
