import { type Fault, lasting, TAKES_ATTEMPTS } from './fault.ts';

/** kill -9 of the Docker engine, which comes back after a while. Its containers end with it. */
export const dockerKill: Fault = {
  ...TAKES_ATTEMPTS,
  needs: ['docker'],
  async run({ world, random }) {
    await world.docker?.stop('SIGKILL');
    await lasting(random.integer(0, 3_000));
    await world.docker?.start();
    return world.agents.map(({ selector }) => selector);
  },
};
