import { ConnectError } from '@connectrpc/connect';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, onTestFinished, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { code } from '../support/requests.ts';
import { Stack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until, within } from '../support/wait.ts';

const TICKS = { lines: 400, width: 20, pause: 0.02 };
const CALLERS = 4;

/** A primary whose commits wait for its standby, so that nothing that was told is lost with it. */
async function startPair() {
  const primary = await ExternalPostgres.start();
  const standby = await primary.startStandby();
  const sql = connect({ url: primary.url }, 1);
  // Not in the standby's copy: it has nobody to wait for.
  await sql`ALTER SYSTEM SET synchronous_standby_names = '*'`;
  await sql`SELECT pg_reload_conf()`;
  await until('the standby to be waited for', async () => {
    const [row] = await sql`SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'`;
    return row !== undefined;
  });
  await sql.end();
  const hosts = [primary, standby].map(({ port }) => `127.0.0.1:${port}`).join(',');
  return { primary, standby, url: `postgres://harrier@${hosts}/postgres?target_session_attrs=primary` };
}

/** Begins executions until `stop`. @returns the ids of those that it was told of */
function begin(at: ControlPlane) {
  let stopped = false;
  const ids: string[] = [];
  const codes = new Set<string>();
  const one = async () => {
    while (!stopped) {
      try {
        const source = 'def handler(input):\n    return {"n": 1}\n';
        ids.push(await within('an execution to be taken', create(at.clients.executions, code(source))));
      } catch (error) {
        codes.add(ConnectError.from(error).message);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  };
  const all = Promise.all(Array.from({ length: CALLERS }, one));
  return {
    ids,
    stop: async () => {
      stopped = true;
      await all;
      return [...codes].filter((text) => !text.startsWith('[unavailable]'));
    },
  };
}

test('PostgreSQL fails over under two replicas: what was told is there, and everything goes on at the other server', async () => {
  const { primary, standby, url } = await startPair();
  const [atAgent, other] = (await Promise.all([1, 2].map(() => ControlPlane.start({ databaseUrl: url })))) as [
    ControlPlane,
    ControlPlane,
  ];
  const stack = new Stack(atAgent);
  onTestFinished(async () => {
    await other.stop();
    await stack.stop();
    await standby.stop();
  });
  await stack.addAgent();
  const running = await create(other.clients.executions, ticker(TICKS));
  await untilPrinted(other.clients.executions, running, 'line 5 ');
  const calls = [begin(atAgent), begin(other)];
  await until('calls to be taken', () => calls.every(({ ids }) => ids.length > 20));
  await primary.kill();
  const told = calls.flatMap(({ ids }) => ids);
  const sql = connect({ url: standby.url }, 1);
  await sql`SELECT pg_promote()`;
  await sql.end();
  const before = calls.map(({ ids }) => ids.length);
  await until('calls to be taken again', () => calls.every(({ ids }, n) => ids.length > (before[n] ?? 0) + 20));
  expect(await Promise.all(calls.map(({ stop }) => stop()))).toEqual([[], []]);
  for (const id of told) expect(await get(other.clients.executions, id)).toMatchObject({ id });
  for (const id of calls.flatMap(({ ids }) => ids)) {
    expect(await finished(atAgent.clients.executions, id)).toMatchObject({ state: State.SUCCEEDED });
  }
  expect(await finished(other.clients.executions, running)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  expect((await storedLog(stack.executions, running)).stdout.toString()).toBe(tickerText(TICKS));
  // What one replica prints the other still shows at once: they hear of each other through the other server.
  const source = 'import time\ndef handler(input):\n    print("seen", flush=True)\n    time.sleep(600)\n';
  const printing = await create(other.clients.executions, code(source));
  await untilPrinted(other.clients.executions, printing, 'seen');
  await other.clients.executions.cancelExecution({ id: printing });
  expect(await finished(stack.executions, printing)).toMatchObject({ state: State.CANCELLED });
}, 240_000);
