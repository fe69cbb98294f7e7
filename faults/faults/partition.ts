import type { Direction } from '../world/link-proxy.ts';
import { LEASE_MS } from '../world/world.ts';
import { anAgent, type Fault, type FaultContext, HARMLESS, lasting, TAKES_ATTEMPTS } from './fault.ts';

const BOTH: readonly Direction[] = ['to agent', 'to replica'];

async function cutFor(context: FaultContext, directions: readonly Direction[], ms: number): Promise<string[]> {
  const host = anAgent(context);
  for (const direction of directions) host.cut(direction);
  await lasting(ms);
  host.mend();
  return [host.selector];
}

/** Nothing passes between an agent and the replicas, for less than its lease. */
export const partitionShort: Fault = {
  ...HARMLESS,
  run: (context) => cutFor(context, BOTH, LEASE_MS * (0.1 + context.random.number() * 0.3)),
};

/** The same for longer than its lease. */
export const partitionLong: Fault = {
  ...TAKES_ATTEMPTS,
  run: (context) => cutFor(context, BOTH, LEASE_MS + context.random.integer(2_000, 8_000)),
};

/** Only one direction passes, for longer than the lease. */
export const partitionOneWay: Fault = {
  ...TAKES_ATTEMPTS,
  run: (context) => cutFor(context, [context.random.pick(BOTH)], LEASE_MS + context.random.integer(2_000, 8_000)),
};

/** The network comes and goes. */
export const partitionFlapping: Fault = {
  ...TAKES_ATTEMPTS,
  async run(context) {
    const host = anAgent(context);
    for (let i = 0; i < 6; i++) {
      for (const direction of BOTH) host.cut(direction);
      await lasting(context.random.integer(100, 1_500));
      host.mend();
      await lasting(context.random.integer(100, 1_500));
    }
    return [host.selector];
  },
};
