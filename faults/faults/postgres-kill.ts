import { type Fault, HARMLESS, lasting } from './fault.ts';

/** kill -9 of PostgreSQL with all its processes. */
export const postgresKill: Fault = {
  ...HARMLESS,
  async run({ world, random }) {
    await world.database.kill();
    await lasting(random.integer(0, 2_000));
    await world.database.startAgain();
    return [];
  },
};
