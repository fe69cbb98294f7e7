import { Clock } from '../world/clock.ts';
import { anAgent, aReplica, type Fault, HARMLESS, lasting } from './fault.ts';

const HOUR_S = 3_600;
/** Until the moved clock is seen, and for what it could do to leases and timers. */
const LASTING_MS = 6_000;

/** The wall clock of an agent's host jumps by an hour and back. */
export const clockOfAgent: Fault = {
  ...HARMLESS,
  needs: ['clock'],
  async run(context) {
    const host = anAgent(context);
    const clock = new Clock();
    const { env = {} } = host.agent.options;
    await host.kill();
    host.agent.startAgain({ env: { ...env, ...clock.env } });
    await jump(clock, context.random.pick([HOUR_S, -HOUR_S]));
    await host.kill();
    host.agent.startAgain({ env });
    return [host.selector];
  },
};

/** The same on the host of a replica. */
export const clockOfReplica: Fault = {
  ...HARMLESS,
  needs: ['clock'],
  async run(context) {
    const { world, random } = context;
    const replica = aReplica(context);
    const clock = new Clock();
    await replica.stop();
    await replica.startAgain(clock.env);
    await jump(clock, random.pick([HOUR_S, -HOUR_S]));
    await replica.stop();
    await replica.startAgain();
    return world.agents.map(({ selector }) => selector);
  },
};

async function jump(clock: Clock, seconds: number): Promise<void> {
  await lasting(LASTING_MS / 3);
  clock.move(seconds);
  await lasting(LASTING_MS);
  clock.move(0);
  await lasting(LASTING_MS / 3);
}
