import type { Allowance } from '../evidence.ts';
import type { Random } from '../random.ts';
import type { AgentHost } from '../world/agent-host.ts';
import type { ReplicaHost } from '../world/replica-host.ts';
import type { World } from '../world/world.ts';

export interface FaultContext {
  world: World;
  /** Decides whom it hits, and for how long. */
  random: Random;
  /** What the seed has decided, for people. */
  say: (text: string) => void;
  /** Lets the executions of the round arrive, where they wait for it. */
  begin: () => void;
  /** It happens now, and not when the fault began. */
  strike: () => void;
  /** There was nothing to hit: the round tells nothing of the fault. */
  miss: () => void;
}

/** Something that happens to a world in operation. */
export interface Fault extends Allowance {
  /** What it needs of the host. */
  needs?: readonly Need[];
  /** Executions arrive when it says so, not before it. */
  isFirst?: boolean;
  /**
   * Does it and, where it lasts, undoes it: afterwards everything that should run has been started.
   * @returns selectors of agents that have to run something again; empty: any agent has to
   */
  run(context: FaultContext): Promise<string[]>;
}

/** `docker`: an engine of the machine's own; `clock`: libfaketime. */
export type Need = 'root' | 'docker' | 'clock';

/** No attempt may end because of it. */
export const HARMLESS: Allowance = { attemptsMayFail: false, outputMayBeDropped: false, chunksMayOverlap: false };
/** Attempts that it hits may end; what may be tried again is. */
export const TAKES_ATTEMPTS: Allowance = { ...HARMLESS, attemptsMayFail: true };

/** Lets the fault last. */
export async function lasting(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

export function anAgent({ world, random, say }: FaultContext): AgentHost {
  const host = random.pick(world.agents);
  say(host.name);
  return host;
}

export function aReplica({ world, random, say }: FaultContext): ReplicaHost {
  const replica = random.pick(world.replicas);
  say(replica.name);
  return replica;
}
