import { ExternalPostgres } from '../test/support/postgres.ts';
import { measureFleet } from './fleet-beats.ts';
import { measureClaims } from './fleet-claims.ts';
import { measurePlacement } from './fleet-placement.ts';

const PARTS = ['beats', 'placement', 'claims'] as const;

/**
 * What a large fleet and a long queue cost one replica.
 * @param chosen names of parts; none: all
 */
export async function benchFleet(_python: string, chosen: readonly string[]): Promise<Record<string, number>> {
  const does = (part: (typeof PARTS)[number]) => chosen.length === 0 || chosen.includes(part);
  const figures: Record<string, number> = {};
  if (does('placement')) Object.assign(figures, measurePlacement());
  for (const [part, measure] of [
    ['beats', measureFleet],
    ['claims', measureClaims],
  ] as const) {
    if (!does(part)) continue;
    const postgres = await ExternalPostgres.start();
    try {
      Object.assign(figures, await measure(postgres));
    } finally {
      await postgres.stop();
    }
  }
  return figures;
}
