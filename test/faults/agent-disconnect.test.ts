import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Module_OnDisconnect as OnDisconnect } from '@harrier/shared/gen/module';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { type Direction, LinkProxy } from '../../faults/world/link-proxy.ts';
import { create, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { command, fixture, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';

// One agent reaches the control plane through a network that breaks, the other one directly.
const LEASE_S = 3;
const MIB = 1024 * 1024;
const SPOOL_BYTES = 64 * MIB;
const stack = await startStack({ controlPlane: { env: { HARRIER_LEASE_S: String(LEASE_S) } }, agents: [] });
const { executions, modules } = stack;
const network = await LinkProxy.listen('127.0.0.1', stack.controlPlane.port);
afterAll(() => network.close());
const cut = await stack.addAgent({
  name: 'cut',
  serverUrl: `http://127.0.0.1:${network.port}`,
  flags: ['--spool-bytes', String(SPOOL_BYTES)],
});
await stack.addAgent({ name: 'whole' });
const [cutId, wholeId] = [await stack.idOf('cut'), await stack.idOf('whole')];

const AT_ONCE = { initialBackoff: { nanos: 1_000_000 } };
const BOTH: Direction[] = ['to agent', 'to replica'];

/** Starts something that runs on the agent behind the bad network, but may be tried again anywhere. */
async function startOnCut(request: Pick<Parameters<typeof create>[1], 'target' | 'inputForm'>): Promise<string> {
  const whole = await stack.idOf('whole');
  await stack.clients.agents.drainAgent({ id: whole });
  const id = await create(executions, { ...request, retryPolicy: AT_ONCE });
  await until(`execution ${id} to run on the agent "cut"`, async () => {
    const { state, agentId } = await get(executions, id);
    return state === State.RUNNING && agentId === cutId;
  });
  await stack.clients.agents.resumeAgent({ id: whole });
  return id;
}

/** Lets nothing through until the test is over. */
function breakNetwork(directions: readonly Direction[]): void {
  for (const direction of directions) network.hold(direction);
  onTestFinished(async () => {
    network.release();
    await stack.untilOnline('cut');
  });
}

const runsOnCut = (argument: string): boolean =>
  cut.launcherProcesses().some((process) => process.command.includes(argument));

test.each([
  ['in both directions', BOTH],
  ['towards the agent', ['to agent']],
  ['towards the control plane', ['to replica']],
] as const)(
  'a network that is broken %s: work is stopped before it runs elsewhere, and never runs twice',
  async (_, held) => {
    const seconds = `36${held.length}${held[0].length}`;
    const id = await startOnCut(command('sh', '-c', `echo up; exec sleep ${seconds}`));
    await until('the process to run', () => runsOnCut(`sleep ${seconds}`));
    breakNetwork(held);
    await until('the second attempt to run', async () => {
      const { attempt, state } = await get(executions, id);
      return attempt === 2 && state === State.RUNNING;
    });
    expect(runsOnCut(`sleep ${seconds}`)).toBe(false);
    const { agentId, attempts } = await get(executions, id);
    expect(agentId).toBe(wholeId);
    expect(attempts[0]).toMatchObject({
      number: 1,
      agentId: cutId,
      state: State.FAILED,
      error: { code: Code.AGENT_LOST },
    });
    await executions.cancelExecution({ id });
    expect(await finished(executions, id)).toMatchObject({ state: State.CANCELLED, attempt: 2 });
  },
);

test('what a module keeps goes on without the control plane for longer than the lease, and ends as if nothing had been', async () => {
  const { KEEP } = OnDisconnect;
  const ticks = { lines: 100, width: 20, pause: 0.1 };
  const module = { name: 'kept', version: '1.0.0', code: fixture('ticker.py'), onDisconnect: KEEP };
  await modules.createModule({ module });
  const kept = await startOnCut(moduleCall('kept', ticks));
  const stopped = await startOnCut(command('sleep', '3690'));
  await untilPrinted(executions, kept, 'line 3 ');
  breakNetwork(BOTH);
  await until('the lease to be over', async () => (await get(executions, stopped)).attempt === 2);
  expect(await get(executions, kept)).toMatchObject({ state: State.RUNNING, attempt: 1 });
  network.release();
  await executions.cancelExecution({ id: stopped });
  expect(await finished(executions, kept)).toMatchObject({ state: State.SUCCEEDED, attempt: 1, agentId: cutId });
  expect((await storedLog(executions, kept)).stdout.toString()).toBe(tickerText(ticks));
});

test('what a module keeps is given up when it was cut off for longer than that', async () => {
  const policy = { onDisconnect: OnDisconnect.KEEP, maxDisconnect: { seconds: 2n } };
  const source = 'import time\ndef handler(input):\n    print("up", flush=True)\n    time.sleep(600)\n';
  await modules.createModule({ module: { name: 'given-up', version: '1.0.0', code: source, ...policy } });
  const id = await startOnCut(moduleCall('given-up'));
  const stopped = await startOnCut(command('sleep', '3691'));
  breakNetwork(BOTH);
  const lostAtMs: number[] = [];
  for (const each of [stopped, id]) {
    await until('the second attempt', async () => (await get(executions, each)).attempt === 2);
    await executions.cancelExecution({ id: each });
    const [first] = (await finished(executions, each)).attempts;
    expect(first).toMatchObject({ agentId: cutId, error: { code: Code.AGENT_LOST } });
    lostAtMs.push(first?.endTime === undefined ? Number.NaN : timestampMs(first.endTime));
  }
  expect(lostAtMs[1]).toBeGreaterThan(lostAtMs[0] ?? Number.NaN);
});

test('what the agent has no room for while the control plane is away is missing, and the execution says so', async () => {
  const source = `import os, time
def handler(input):
    os.write(1, b"up\\n")
    time.sleep(3)
    for n in range(96): os.write(1, bytes([65 + n % 26]) * ${MIB})
    return {"written": True}
`;
  const limits = { stdoutBytes: BigInt(128 * MIB) };
  const module = { name: 'talkative', version: '1.0.0', code: source, limits, onDisconnect: OnDisconnect.KEEP };
  await modules.createModule({ module });
  const id = await startOnCut(moduleCall('talkative'));
  await untilPrinted(executions, id, 'up');
  breakNetwork(BOTH);
  const log = join(cut.dataDirectory, 'launcher.log');
  await until('the spool to be full', () => readFileSync(log, 'utf8').includes('output is dropped'));
  network.release();
  const execution = await finished(executions, id);
  expect(execution).toMatchObject({
    state: State.SUCCEEDED,
    attempt: 1,
    stdoutTruncated: true,
    stderrTruncated: false,
  });
  const { stdout } = await storedLog(executions, id);
  expect(BigInt(stdout.length)).toBe(execution.stdoutBytes);
  const mark = /\n\[harrier: stdout dropped after (?<bytes>\d+) bytes: the agent's spool is full\]\n$/;
  const kept = Number(mark.exec(stdout.subarray(-200).toString())?.groups?.bytes);
  expect(kept).toBeGreaterThan(SPOOL_BYTES / 2);
  const written = Buffer.concat([
    Buffer.from('up\n'),
    ...Array.from({ length: 96 }, (_, n) => Buffer.alloc(MIB, 65 + (n % 26))),
  ]);
  expect(stdout.subarray(0, kept).equals(written.subarray(0, kept))).toBe(true);
});

test('a network that breaks again and again loses nothing', async () => {
  const ticks = { lines: 150, width: 60, pause: 0.02 };
  const id = await startOnCut(ticker(ticks));
  for (let count = 0; count < 5; count++) {
    network.reset();
    await stack.untilOnline('cut');
  }
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1, agentId: cutId });
  expect((await storedLog(executions, id)).stdout.toString()).toBe(tickerText(ticks));
});
