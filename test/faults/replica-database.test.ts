import { Code, ConnectError } from '@connectrpc/connect';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, onTestFinished, test } from 'vitest';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { processesWith } from '../support/processes.ts';
import { code } from '../support/requests.ts';
import { Stack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';

const quick = code('def handler(input):\n    return {"n": 1}\n');
const TICKS = { lines: 200, width: 20, pause: 0.02 };
/** Codes that tell a caller what is wrong with the call, or with Harrier: none of them may come of a database that is away. */
const MAY_FAIL_WITH = [Code.Unavailable];

/** Calls again and again until `stop`. @returns what they failed with */
function callers(at: ControlPlane, count: number) {
  let stopped = false;
  const codes = new Set<Code>();
  let served = 0;
  const one = async () => {
    while (!stopped) {
      try {
        const { state } = await execute(at.clients.executions, quick);
        if (state === State.SUCCEEDED) served++;
      } catch (error) {
        codes.add(ConnectError.from(error).code);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  };
  const all = Promise.all(Array.from({ length: count }, one));
  return {
    served: () => served,
    stop: async () => {
      stopped = true;
      await all;
      return [...codes].filter((status) => !MAY_FAIL_WITH.includes(status)).map((status) => Code[status]);
    },
  };
}

test('PostgreSQL restarts under two replicas with calls in flight: nothing is lost, and they hear of each other again', async () => {
  const postgres = await ExternalPostgres.start();
  const [atAgent, other] = (await Promise.all([1, 2].map(() => ControlPlane.start({ databaseUrl: postgres.url })))) as [
    ControlPlane,
    ControlPlane,
  ];
  const stack = new Stack(atAgent);
  onTestFinished(async () => {
    await other.stop();
    await stack.stop();
    await postgres.stop();
  });
  await stack.addAgent();
  const id = await create(other.clients.executions, ticker(TICKS));
  await untilPrinted(other.clients.executions, id, 'line 5 ');
  const calls = [callers(atAgent, 4), callers(other, 2)];
  for (const how of ['stopped', 'killed']) {
    const before = calls.map(({ served }) => served());
    if (how === 'killed') await postgres.kill();
    else await postgres.stop();
    await postgres.startAgain();
    await until('calls to be served again', () => calls.every(({ served }, n) => served() > (before[n] ?? 0) + 5));
  }
  expect(await Promise.all(calls.map(({ stop }) => stop()))).toEqual([[], []]);
  expect(await finished(other.clients.executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  expect((await storedLog(stack.executions, id)).stdout.toString()).toBe(tickerText(TICKS));
  // What one replica prints the other still shows at once, not with its next look.
  const source = 'import time\ndef handler(input):\n    print("seen", flush=True)\n    time.sleep(600)\n';
  const printing = await create(other.clients.executions, code(source));
  await untilPrinted(other.clients.executions, printing, 'seen');
  await other.clients.executions.cancelExecution({ id: printing });
  expect(await finished(stack.executions, printing)).toMatchObject({ state: State.CANCELLED });
  const defects = [atAgent, other].flatMap(({ program }) =>
    program.logs.filter(({ msg }) => /was not handled/.test(String(msg))),
  );
  expect(defects).toEqual([]);
}, 240_000);

test('the embedded PostgreSQL that is killed is started again, and what was accepted goes on', async () => {
  const stack = new Stack(await ControlPlane.start());
  onTestFinished(() => stack.stop());
  await stack.addAgent();
  const before = await execute(stack.executions, quick);
  const id = await create(stack.executions, ticker(TICKS));
  await untilPrinted(stack.executions, id, 'line 5 ');
  const servers = () =>
    processesWith(`${stack.controlPlane.dataDirectory}/postgres`).filter(({ command }) =>
      command.includes('/postgres -D'),
    );
  const [killed] = servers();
  process.kill(killed?.pid ?? 0, 'SIGKILL');
  await until('another server to run', () => servers().some(({ pid }) => pid !== killed?.pid));
  // It recovers before it answers.
  await until('the database to answer', async () => {
    const answer = await get(stack.executions, before.id).catch((error: unknown) => ConnectError.from(error));
    if (answer instanceof ConnectError && answer.code !== Code.Unavailable) throw answer;
    return !(answer instanceof ConnectError);
  });
  expect(await finished(stack.executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  expect((await storedLog(stack.executions, id)).stdout.toString()).toBe(tickerText(TICKS));
  expect(await get(stack.executions, before.id)).toMatchObject({ state: State.SUCCEEDED });
  expect(await execute(stack.executions, quick)).toMatchObject({ state: State.SUCCEEDED });
}, 240_000);
