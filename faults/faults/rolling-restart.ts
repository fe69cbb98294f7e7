import { type Fault, HARMLESS } from './fault.ts';

/** Every replica is asked to stop and started again, one after the other. */
export const rollingRestart: Fault = {
  ...HARMLESS,
  async run({ world }) {
    for (const replica of world.replicas) {
      await replica.stop();
      await replica.startAgain();
    }
    return world.agents.map(({ selector }) => selector);
  },
};
