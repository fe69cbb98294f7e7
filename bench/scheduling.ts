import { measureMixedPlacement } from './scheduling/mixed-placement.ts';
import { measureProbes } from './scheduling/probes.ts';
import { measureSlurm } from './scheduling/slurm.ts';

/** Each measures for itself; the name chooses it. */
const PARTS: Readonly<Record<string, () => Record<string, number> | Promise<Record<string, number>>>> = {
  placement: measureMixedPlacement,
  probes: measureProbes,
  slurm: measureSlurm,
};

/**
 * What it costs to find a place for executions that ask for much, to know what hosts have, and to have jobs of Slurm.
 * @param chosen names of parts; none: all
 */
export async function benchScheduling(_python: string, chosen: readonly string[]): Promise<Record<string, number>> {
  const unknown = chosen.find((part) => !Object.hasOwn(PARTS, part));
  if (unknown !== undefined) {
    throw new Error(`there is no part "${unknown}"; choose of ${Object.keys(PARTS).join(', ')}`);
  }
  const figures: Record<string, number> = {};
  for (const [part, measure] of Object.entries(PARTS)) {
    if (chosen.length === 0 || chosen.includes(part)) Object.assign(figures, await measure());
  }
  return figures;
}
