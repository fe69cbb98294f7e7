import { anAgent, type Fault, HARMLESS } from './fault.ts';

/** A new version of the agent is installed elsewhere and started in place of the old one, which leaves what runs running. */
export const agentUpgrade: Fault = {
  ...HARMLESS,
  async run(context) {
    const { agent, selector } = anAgent(context);
    const release = context.world.newRelease();
    agent.program.signal('SIGTERM');
    // Not waiting for what runs, as `systemctl restart` with a short stop timeout.
    agent.program.signal('SIGKILL');
    await agent.program.exited;
    agent.startAgain({ program: release.main });
    return [selector];
  },
};
