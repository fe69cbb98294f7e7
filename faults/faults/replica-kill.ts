import { aReplica, type Fault, HARMLESS, lasting } from './fault.ts';

/** kill -9 of a replica, which comes back after a while. */
export const replicaKill: Fault = {
  ...HARMLESS,
  chunksMayOverlap: true,
  async run(context) {
    const { world, random } = context;
    const replica = aReplica(context);
    await replica.kill();
    await lasting(random.integer(0, 3_000));
    await replica.startAgain();
    return world.agents.map(({ selector }) => selector);
  },
};
