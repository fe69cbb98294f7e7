import { anAgent, type Fault, HARMLESS } from './fault.ts';

/** A new version of the agent is installed elsewhere and started in place of the old one, whose work goes on or ends first. */
export const agentUpgrade: Fault = {
  ...HARMLESS,
  async run(context) {
    const { agent, selector } = anAgent(context);
    const release = context.world.newRelease();
    const isPatient = context.random.chance(0.5);
    context.say(isPatient ? 'waits for what runs' : 'leaves what runs to its launcher');
    await agent.stop(isPatient ? 'SIGTERM' : 'SIGKILL');
    agent.startAgain({ program: release.main });
    return [selector];
  },
};
