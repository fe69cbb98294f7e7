import { anAgent, type Fault, type FaultContext, HARMLESS, lasting } from './fault.ts';

/** An agent is drained while it works, for longer than most of its work takes, and resumed. */
export const drain: Fault = {
  ...HARMLESS,
  async run(context: FaultContext) {
    const { world, random } = context;
    const host = anAgent(context);
    const { agents } = await world.clients().agents.listAgents({ pageSize: 100 });
    const id = agents.find(({ name }) => name === host.name)?.id ?? '';
    await world.clients().agents.drainAgent({ id });
    await lasting(random.integer(2_000, 6_000));
    await world.clients().agents.resumeAgent({ id });
    return [host.selector];
  },
};
