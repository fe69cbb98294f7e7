import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Agent } from '../test/support/agent.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { create, get, untilPrinted } from '../test/support/executions.ts';
import { killProcessesWith } from '../test/support/processes.ts';
import { code } from '../test/support/requests.ts';
import { until } from '../test/support/wait.ts';
import { median } from './statistics.ts';

const LEASE_S = 4;
const ROUNDS = 3;
const PRINT_AND_WAIT = `import time
def handler(input):
    print("begun", flush=True)
    time.sleep(600)
`;

/** An agent dies with its launcher: what comes on top of the lease until its work runs at the other one. */
export async function measureTakeover(): Promise<Record<string, number>> {
  const controlPlane = await ControlPlane.start({ env: { HARRIER_LEASE_S: String(LEASE_S) } });
  const { executions } = controlPlane.clients;
  const agents: Agent[] = [];
  try {
    for (const name of ['one', 'two']) {
      const joinToken = await controlPlane.joinToken();
      agents.push(Agent.start({ name, serverUrl: controlPlane.url, joinToken }));
    }
    await controlPlane.untilOnline(agents.length);
    const { agents: known } = await controlPlane.clients.agents.listAgents({});
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const id = await create(executions, code(PRINT_AND_WAIT));
      await untilPrinted(executions, id, 'begun');
      const { agentId } = await get(executions, id);
      const victim = agents.find(({ options }) => known.find(({ id: of }) => of === agentId)?.name === options.name);
      if (victim === undefined) throw new Error(`execution ${id} runs on agent ${agentId}, which is none of these`);
      const startMs = performance.now();
      killProcessesWith(victim.dataDirectory);
      await until('the work to run elsewhere', async () => {
        const execution = await get(executions, id);
        return execution.attempt === 2 && execution.state === State.RUNNING;
      });
      times.push(performance.now() - startMs - LEASE_S * 1000);
      await executions.cancelExecution({ id });
      victim.startAgain();
      await controlPlane.untilOnline(agents.length);
    }
    return { takeover_after_lease_ms: median(times) };
  } finally {
    for (const agent of agents) await agent.remove();
    await controlPlane.stop();
  }
}
