import { LEASE_MS } from '../world/world.ts';
import { aReplica, type Fault, HARMLESS, lasting } from './fault.ts';

/** SIGSTOP of a replica for longer than a lease, then SIGCONT: its agents have to see that it renews nothing, and go. */
export const replicaPause: Fault = {
  ...HARMLESS,
  chunksMayOverlap: true,
  async run(context) {
    const { program } = aReplica(context).controlPlane;
    program.signal('SIGSTOP');
    await lasting(LEASE_MS + context.random.integer(2_000, 6_000));
    program.signal('SIGCONT');
    return context.world.agents.map(({ selector }) => selector);
  },
};
