import { LEASE_MS } from '../world/world.ts';
import { anAgent, type Fault, lasting, TAKES_ATTEMPTS } from './fault.ts';

/** SIGSTOP of an agent for longer than its lease, then SIGCONT. */
export const agentPause: Fault = {
  ...TAKES_ATTEMPTS,
  async run(context) {
    const { agent, selector } = anAgent(context);
    agent.program.signal('SIGSTOP');
    await lasting(LEASE_MS + context.random.integer(2_000, 6_000));
    agent.program.signal('SIGCONT');
    return [selector];
  },
};
