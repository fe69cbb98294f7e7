import { anAgent, type Fault, HARMLESS } from './fault.ts';

/** kill -9 of an agent; a supervisor starts it again at once. Its launcher goes on. */
export const agentKill: Fault = {
  ...HARMLESS,
  async run(context) {
    const host = anAgent(context);
    await host.kill();
    host.agent.startAgain();
    return [host.selector];
  },
};
