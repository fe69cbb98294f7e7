import net, { type AddressInfo } from 'node:net';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create, finished } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { RawIdentity, RawLink } from '../support/raw-link.ts';
import { code } from '../support/requests.ts';
import { until } from '../support/wait.ts';

const database = await ExternalPostgres.start();
const held = await holdAnswers(database.port);
const controlPlane = await ControlPlane.start({
  databaseUrl: `postgres://harrier@127.0.0.1:${held.port}/postgres`,
});
const { executions } = controlPlane.clients;
const sql = connect({ url: database.url }, 3);
afterAll(async () => {
  held.release();
  await controlPlane.stop();
  await sql.end();
  held.close();
  await database.stop();
});
const work = code('def handler(input):\n    return {}\n');

test('a next attempt that is claimed before the end of the one before is answered reaches its agent', async () => {
  const agent = await RawLink.join(controlPlane.url, new RawIdentity(), { joinToken: await controlPlane.joinToken() });
  const initialBackoff = { seconds: 0n, nanos: 1_000_000 };
  const id = await create(executions, {
    ...work,
    retryPolicy: { maxAttempts: 2, codes: [Code.HANDLER_ERROR], initialBackoff },
  });
  const first = await agent.next('assignment');
  held.hold('INSERT INTO attempts');
  agent.send({
    case: 'result',
    value: { ref: first.ref, state: State.FAILED, error: { code: Code.HANDLER_ERROR, message: 'no' } },
  });
  const second = await agent.next('assignment');
  expect(second.ref).toMatchObject({ executionId: id, attempt: 2 });
  expect(held.holding).toBe(true);
  held.release();
  const outputJson = Buffer.from('{"second":true}');
  agent.send({ case: 'result', value: { ref: second.ref, state: State.SUCCEEDED, outputJson } });
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 2 });
  agent.close();
});

test('what ran in a former process of an agent is lost with it, also when the first link of the new one breaks', async () => {
  const identity = new RawIdentity();
  const labels = { zone: 'cut' };
  const joinToken = await controlPlane.joinToken();
  const former = await RawLink.join(controlPlane.url, identity, { joinToken, labels, instanceId: 'former' });
  const id = await create(executions, { ...work, agentSelector: 'zone=cut', retryPolicy: { maxAttempts: 1 } });
  const assignment = await former.next('assignment');
  former.send({ case: 'started', value: { ref: assignment.ref } });
  await until('the start to be stored', async () => {
    const [row] = await sql<{ state: number }[]>`SELECT state FROM executions WHERE id = ${id}`;
    return row?.state === State.RUNNING;
  });
  // Its row is locked, so that the link is gone before it can be answered.
  await sql.begin(async (transaction) => {
    await transaction`SELECT id FROM agents WHERE labels ->> 'zone' = 'cut' FOR UPDATE`;
    former.close();
    const cut = RawLink.open(controlPlane.url);
    await cut.sayHello(identity, { labels, instanceId: 'new', held: [] });
    await until('the hello to wait for the row', async () => {
      const waiting = await sql`SELECT pid FROM pg_locks WHERE NOT granted`;
      return waiting.length > 0;
    });
    cut.close();
  });
  const now = await RawLink.join(controlPlane.url, identity, { labels, instanceId: 'new', held: [] });
  expect(await finished(executions, id)).toMatchObject({
    state: State.FAILED,
    attempt: 1,
    error: { code: Code.AGENT_LOST },
  });
  now.close();
});

/** A proxy to PostgreSQL that can hold back the answers of a connection, from that to an insert with a certain text on. */
async function holdAnswers(port: number) {
  let text: string | undefined;
  let waiting: (() => void)[] | undefined;
  const server = net.createServer((client) => {
    const upstream = net.connect(port, '127.0.0.1');
    let isAsked = false;
    let isHeld = false;
    client.on('data', (data) => {
      if (text !== undefined && data.includes(text)) {
        text = undefined;
        isAsked = true;
      }
      upstream.write(data);
    });
    upstream.on('data', (data) => {
      // The tag of the command: what came before is the answer to its preparation.
      if (isAsked && data.includes('INSERT 0 1')) {
        isAsked = false;
        isHeld = true;
        waiting = [];
      }
      if (isHeld && waiting !== undefined) waiting.push(() => client.write(data));
      else client.write(data);
    });
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on('error', () => undefined);
      one.on('close', () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    get holding() {
      return (waiting?.length ?? 0) > 0;
    },
    hold: (next: string) => {
      text = next;
    },
    release: () => {
      for (const write of waiting ?? []) write();
      waiting = undefined;
    },
    close: () => server.close(),
  };
}
