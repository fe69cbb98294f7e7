import { killProcess } from '../world/kill-process.ts';
import { LEASE_MS } from '../world/world.ts';
import { type Fault, lasting, TAKES_ATTEMPTS } from './fault.ts';

/** Every agent goes with its launcher, as in a loss of power, and all come back when their leases have ended. */
export const allAgentsGone: Fault = {
  ...TAKES_ATTEMPTS,
  async run({ world, random }) {
    for (const host of world.agents) {
      await host.kill();
      if (host.agent.launcherPid !== undefined) killProcess(host.agent.launcherPid);
    }
    await lasting(LEASE_MS + random.integer(0, 4_000));
    for (const { agent } of world.agents) agent.startAgain();
    return world.agents.map(({ selector }) => selector);
  },
};
