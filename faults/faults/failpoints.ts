import { AGENT_FAILPOINTS, CONTROL_PLANE_FAILPOINTS } from '@harrier/shared';
import { anAgent, aReplica, type Fault, type FaultContext, HARMLESS } from './fault.ts';

/** How long a process may take to come to its failpoint; then it is one that this load does not reach. */
const REACHED_MS = 20_000;
/** Few: each round is to come to its failpoint. */
const MOST_PASSES = 2;

/** A replica ends on one side or the other of a commit. All agents are linked to it, and the work of the round comes then. */
export const failpointOfReplica: Fault = {
  ...HARMLESS,
  chunksMayOverlap: true,
  isFirst: true,
  async run(context) {
    const { world, random } = context;
    const replica = aReplica(context);
    const failpoint = `${random.pick(CONTROL_PLANE_FAILPOINTS)}:${random.integer(1, MOST_PASSES)}`;
    await replica.stop();
    await replica.startAgain({ HARRIER_FAILPOINTS: failpoint });
    for (const other of world.replicas.filter((one) => one !== replica)) {
      await other.stop();
      await other.startAgain();
    }
    context.begin();
    await endOf(replica.controlPlane.program.exited, failpoint, context);
    if (replica.running) await replica.stop();
    await replica.startAgain();
    return world.agents.map(({ selector }) => selector);
  },
};

/** An agent ends just before it sends a result, or when it is told that one is stored. The work of the round comes then. */
export const failpointOfAgent: Fault = {
  ...HARMLESS,
  isFirst: true,
  async run(context) {
    const host = anAgent(context);
    const failpoint = `${context.random.pick(AGENT_FAILPOINTS)}:${context.random.integer(1, MOST_PASSES)}`;
    const { env = {} } = host.agent.options;
    await host.kill();
    host.agent.startAgain({ env: { ...env, HARRIER_FAILPOINTS: failpoint } });
    // Before that all work goes to the others, and little is left for its failpoint.
    await host.linked();
    context.begin();
    await endOf(host.agent.program.exited, failpoint, context);
    if (host.agent.program.running) await host.kill();
    host.agent.startAgain({ env });
    return [host.selector];
  },
};

async function endOf(exited: Promise<unknown>, failpoint: string, { say, strike, miss }: FaultContext): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<false>();
  const timer = setTimeout(() => resolve(false), REACHED_MS);
  const isReached = await Promise.race([exited.then(() => true), promise]);
  clearTimeout(timer);
  if (isReached) strike();
  else miss();
  say(`${failpoint} ${isReached ? 'reached' : 'not reached'}`);
}
