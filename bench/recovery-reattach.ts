import { Agent } from '../test/support/agent.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { create, untilPrinted } from '../test/support/executions.ts';
import { code } from '../test/support/requests.ts';
import { median } from './statistics.ts';

const ATTEMPTS = 100;
const ROUNDS = 3;
const PRINT_ON = `import time
def handler(input):
    while True:
        print(time.time(), flush=True)
        time.sleep(0.2)
`;

/** kill -9 of an agent with running attempts, until the output of each of them comes again. */
export async function measureReattach(): Promise<Record<string, number>> {
  const controlPlane = await ControlPlane.start();
  const { executions } = controlPlane.clients;
  const joinToken = await controlPlane.joinToken();
  const agent = Agent.start({ name: 'bench', serverUrl: controlPlane.url, joinToken, slots: ATTEMPTS });
  try {
    await controlPlane.untilOnline(1);
    const fromStart = [];
    const fromLink = [];
    const ids = await Promise.all(Array.from({ length: ATTEMPTS }, () => create(executions, code(PRINT_ON))));
    for (const id of ids) await untilPrinted(executions, id, '\n');
    for (let round = 0; round < ROUNDS; round++) {
      await agent.stop('SIGKILL');
      const startTime = Date.now();
      const flowing = Promise.all(ids.map((id) => firstPrintAfter(controlPlane, id, startTime)));
      agent.startAgain();
      await flowing;
      const flowTime = Date.now();
      fromStart.push(flowTime - startTime);
      fromLink.push(flowTime - lastLinkTime(controlPlane));
    }
    await Promise.all(ids.map((id) => executions.cancelExecution({ id })));
    return { reattach_100_from_start_ms: median(fromStart), reattach_100_ms: median(fromLink) };
  } finally {
    await agent.remove();
    await controlPlane.stop();
  }
}

async function firstPrintAfter(controlPlane: ControlPlane, id: string, time: number): Promise<void> {
  const { executions } = controlPlane.clients;
  const stream = executions.readLogs({ id, follow: true });
  let text = '';
  for await (const { chunk } of stream) {
    text = (text + new TextDecoder().decode(chunk?.data)).slice(-100);
    const lines = text.split('\n').slice(1, -1);
    if (lines.some((line) => Number(line) * 1000 > time)) return;
  }
  throw new Error(`the log of ${id} ended`);
}

/** When the agent was admitted the last time, by the log of the control plane. */
function lastLinkTime(controlPlane: ControlPlane): number {
  const line = controlPlane.program.logs.findLast(({ msg }) => msg === 'agent linked');
  return Date.parse(String(line?.time));
}
