import { Code, ConnectError } from '@connectrpc/connect';
import { ExecutionError_Code as ErrorCode } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { Clients, mayBeMadeAgain } from '../support/clients.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { Front } from '../support/front.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { code } from '../support/requests.ts';
import { Stack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';

const LEASE = { HARRIER_LEASE_S: '4', HARRIER_STOP_GRACE_S: '10' };
const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const startReplica = (port?: number) =>
  ControlPlane.start({ databaseUrl: postgres.url, env: LEASE, ...(port !== undefined && { port }) });
const replicas = (await Promise.all([startReplica(), startReplica()])) as [ControlPlane, ControlPlane];
const front = await Front.open(replicas.map(({ port }) => port));
afterAll(() => front.close());
// The second replica is never killed: whoever asks there is answered.
const stack = new Stack(replicas[1]);
afterAll(() => stack.stop());
afterAll(() => replicas[0].stop());
const [agent] = [await stack.addAgent({ serverUrl: front.url }), await stack.addAgent({ serverUrl: front.url })];
const { executions } = stack;
const TICKS = { lines: 150, width: 40, pause: 0.02 };

/** The first replica again, on the same address. */
async function restartFirst(): Promise<void> {
  replicas[0] = await startReplica(replicas[0].port);
}

async function isReady(replica: ControlPlane): Promise<boolean> {
  return await fetch(`${replica.url}/readyz`).then(
    ({ status }) => status === 200,
    () => false,
  );
}

test('kill -9 of a replica with calls in flight: what it had accepted ends once, with its whole log, also what it had not sent', async () => {
  const [dying] = replicas;
  const at = dying.clients.executions;
  const running = await Promise.all(Array.from({ length: 6 }, () => create(at, ticker(TICKS))));
  const waiting = await create(at, { ...ticker({ lines: 3 }), agentSelector: 'later=yes' });
  const key = 'asked-twice';
  const call = execute(at, { ...ticker(TICKS), idempotencyKey: key }).catch((error: unknown) =>
    ConnectError.from(error),
  );
  for (const id of running) await untilPrinted(executions, id, 'line 10 ');
  await dying.kill();
  expect(await call).toBeInstanceOf(ConnectError);
  // The same call at another replica is about the same execution.
  expect(await execute(executions, { ...ticker(TICKS), idempotencyKey: key })).toMatchObject({
    state: State.SUCCEEDED,
    attempt: 1,
  });
  for (const id of running) {
    expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
    expect((await storedLog(executions, id)).stdout.toString()).toBe(tickerText(TICKS));
  }
  const later = await stack.addAgent({ labels: { later: 'yes' }, serverUrl: front.url });
  expect(await finished(executions, waiting)).toMatchObject({ state: State.SUCCEEDED });
  await later.remove();
  await restartFirst();
}, 240_000);

test('the work of an agent that died runs elsewhere when its lease has ended, whichever replica it was linked to', async () => {
  const id = await create(executions, { ...ticker(TICKS), agentSelector: '' });
  await untilPrinted(executions, id, 'line 1 ');
  const { agentId } = await get(executions, id);
  const victim = (await stack.idOf(agent.options.name)) === agentId ? agent : stack.agents[1];
  const { dataDirectory } = victim ?? agent;
  for (const { pid } of [...(victim?.launcherProcesses() ?? []), { pid: victim?.program.pid ?? 0 }]) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It went with another one.
    }
  }
  const execution = await finished(executions, id);
  expect(execution).toMatchObject({ state: State.SUCCEEDED, attempt: 2 });
  expect(execution.agentId).not.toBe(agentId);
  expect(execution.attempts[0]?.error).toMatchObject({ code: ErrorCode.AGENT_LOST });
  expect(execution.attempts[0]?.error?.message).toContain('for longer than its lease of 4 s');
  expect((await storedLog(executions, id, { attempt: 2 })).stdout.toString()).toBe(tickerText(TICKS));
  expect(dataDirectory).not.toBe('');
  victim?.startAgain();
  await stack.untilOnline(victim?.options.name ?? '');
}, 240_000);

test('a replica that stands still is left by its agents, whose work goes on elsewhere; when it is back it is like the others', async () => {
  const [standing, other] = replicas;
  const running = await Promise.all(
    Array.from({ length: 4 }, () => create(standing.clients.executions, ticker({ ...TICKS, lines: 400 }))),
  );
  for (const id of running) await untilPrinted(executions, id, 'line 10 ');
  standing.program.signal('SIGSTOP');
  front.to([other.port]);
  await until('the standing replica to be taken for dead', () =>
    other.program.logs.some(
      // Others have died in tests before.
      ({ msg, replica }) =>
        /^a replica has died/.test(String(msg)) && String(replica).endsWith(`:${standing.program.pid}`),
    ),
  );
  await stack.untilOnline('agent-1');
  await stack.untilOnline('agent-2');
  for (const id of running) {
    expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
    expect((await storedLog(executions, id)).stdout.toString()).toBe(tickerText({ ...TICKS, lines: 400 }));
  }
  standing.program.signal('SIGCONT');
  front.to([standing.port, other.port]);
  for (const id of running) expect(await finished(standing.clients.executions, id)).toMatchObject({ attempt: 1 });
  expect(await execute(standing.clients.executions, ticker({ lines: 2 }))).toMatchObject({ state: State.SUCCEEDED });
  await until('the replica to have heard of it', () =>
    standing.program.logs.some(({ msg }) => /took this one for dead/.test(String(msg))),
  );
}, 240_000);

test('replicas that are restarted one after the other fail no call that is made again when it is told so', async () => {
  let stopped = false;
  let served = 0;
  const failures: string[] = [];
  const clientsOf = () => new Clients(front.url, replicas[1].adminKey);
  const source = 'import time\ndef handler(input):\n    time.sleep(0.05)\n    return {"n": input["n"]}\n';
  const caller = async (place: number) => {
    let clients = clientsOf();
    for (let n = 0; !stopped; n++) {
      const input = { n: place * 10_000 + n };
      const request = { ...code(source, input), idempotencyKey: `rolling ${input.n}` };
      for (let tries = 1; ; tries++) {
        try {
          const { state, outputJson } = await execute(clients.executions, request);
          if (state !== State.SUCCEEDED || outputJson !== JSON.stringify(input))
            failures.push(`${state} ${outputJson}`);
          served++;
          break;
        } catch (error) {
          const failure = ConnectError.from(error);
          clients.close();
          clients = clientsOf();
          if (mayBeMadeAgain(failure) && tries < 100) {
            // As clients do that are told to try again.
            await new Promise((resolve) => setTimeout(resolve, 50));
            continue;
          }
          failures.push(`${Code[failure.code]}: ${failure.message}`);
          break;
        }
      }
    }
    clients.close();
  };
  const callers = Promise.all(Array.from({ length: 4 }, (_, place) => caller(place + 1)));
  for (const place of [0, 1] as const) {
    const { port } = replicas[place];
    const before = served;
    replicas[place].program.signal('SIGTERM');
    await until('the replica to turn load balancers away', async () => (await isReady(replicas[place])) === false);
    front.to(replicas.filter((replica) => replica !== replicas[place]).map((replica) => replica.port));
    expect(await replicas[place].program.exited).toEqual({ code: 0, signal: null });
    replicas[place].disconnect();
    replicas[place] = await startReplica(port);
    front.to(replicas.map((replica) => replica.port));
    if (place === 1) stack.controlPlane = replicas[1];
    // Both serve again before the next one goes.
    while (served < before + 20 && failures.length === 0) await new Promise(setImmediate);
  }
  stopped = true;
  await callers;
  expect(failures).toEqual([]);
}, 240_000);
