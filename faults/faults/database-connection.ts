import { LEASE_MS } from '../world/world.ts';
import { aReplica, type Fault, HARMLESS, lasting } from './fault.ts';

const TIMES = 5;

/** RST of all connections of a replica to PostgreSQL, several times, in the middle of whatever they carry. */
export const databaseReset: Fault = {
  ...HARMLESS,
  async run(context) {
    const { database } = aReplica(context);
    for (let i = 0; i < TIMES; i++) {
      database.reset();
      await lasting(context.random.integer(10, 800));
    }
    return context.world.agents.map(({ selector }) => selector);
  },
};

/**
 * Nothing passes between a replica and PostgreSQL for longer than a lease: its agents have to see that it renews nothing, and
 * go to another one.
 */
export const databaseStalled: Fault = {
  ...HARMLESS,
  chunksMayOverlap: true,
  async run(context) {
    const { database } = aReplica(context);
    database.hold();
    await lasting(LEASE_MS + context.random.integer(2_000, 6_000));
    database.release();
    return context.world.agents.map(({ selector }) => selector);
  },
};
