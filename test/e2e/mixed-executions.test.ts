import { ExecutionService, Execution_State as State } from '@harrier/shared/gen/execution';
import { beforeAll, expect, test } from 'vitest';
import { openHttp, parseEvents, readAll } from '../support/http.ts';
import { LogCollector } from '../support/log-collector.ts';
import { code, command, fixture, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { randomNumbers, type Written, writtenBytes } from '../support/written.ts';

const COUNT = 500;
const CALLERS = 24;
const MIB = 1024 * 1024;
const KINDS = ['module', 'reused module', 'code', 'command'] as const;
const PROTOCOLS = ['gRPC', 'Connect JSON', 'REST'] as const;
const SHELL = 'input=$(cat); printf %s "$input"; printf "%s\\377\\000\\001" "$input" >&2';

interface Planned {
  number: number;
  kind: (typeof KINDS)[number];
  protocol: (typeof PROTOCOLS)[number];
  input: Written;
}

interface Seen {
  id: string;
  output: string;
  stdout: Buffer;
  stderr: Buffer;
}

const stack = await startStack({ agents: [{}, {}] });
const { clients } = stack;
const done = new Map<number, Seen>();

/** Mostly a few KiB, some larger, some empty, every hundredth 5 MiB. */
function planned(number: number): Planned {
  const random = randomNumbers(number);
  const large = number % 100 === 50;
  const size = () => (large ? 5 * MIB : random() < 0.1 ? 0 : Math.floor(random() ** 6 * 300_000));
  return {
    number,
    kind: large ? 'module' : (KINDS[number % KINDS.length] ?? 'module'),
    protocol: PROTOCOLS[Math.floor(number / KINDS.length) % PROTOCOLS.length] ?? 'gRPC',
    input: { seed: number, stdout: size(), stderr: size() },
  };
}

function expected({ kind, input }: Planned): Omit<Seen, 'id'> {
  if (kind === 'command') {
    const text = Buffer.from(JSON.stringify(input));
    return { output: '{}', stdout: text, stderr: Buffer.concat([text, Buffer.from([0xff, 0, 1])]) };
  }
  const [stdout, stderr] = [writtenBytes(input, 'stdout'), writtenBytes(input, 'stderr')];
  return { output: JSON.stringify(input), stdout, stderr };
}

function request({ kind, input }: Planned) {
  switch (kind) {
    case 'module':
      return moduleCall('writer', input);
    case 'reused module':
      return moduleCall('reused-writer', input);
    case 'code':
      return code(fixture('writer.py'), input);
    case 'command':
      return { ...command('sh', '-c', SHELL), inputForm: { case: 'inputJson', value: JSON.stringify(input) } } as const;
  }
}

/** The request as Connect JSON and REST take it. */
function json(plan: Planned): Record<string, unknown> {
  const { target, inputForm } = request(plan);
  return { [target.case]: target.value, inputJson: inputForm.value };
}

/** gRPC and Connect: one call that streams log and result. */
async function runStreamed(plan: Planned): Promise<Seen> {
  const client = clients.client(ExecutionService, plan.protocol === 'gRPC' ? 'gRPC' : 'Connect JSON');
  const log = new LogCollector();
  for await (const { event } of client.executeStream(request(plan))) {
    if (event.case === 'log') log.add(event.value);
    if (event.case !== 'result') continue;
    expect(event.value).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
    return { id: event.value.id, output: event.value.outputJson, stdout: log.stdout, stderr: log.stderr };
  }
  throw new Error('the stream ended without a result');
}

/** REST: modules by their own path, everything else accepted first and followed then; one stream as text, one as events. */
async function runRest(plan: Planned): Promise<Seen> {
  const accepted = await clients.rest('POST', '/executions', json(plan));
  expect(accepted.status, accepted.text).toBe(200);
  const { id } = accepted.json;
  const follow = (stream: string, accept: string) =>
    openHttp(`${clients.url}/executions/${id}/logs?follow=true&stream=${stream}`, {
      headers: { ...clients.headers(), accept },
    }).then(readAll);
  const [stdout, events] = await Promise.all([follow('STDOUT', 'text/plain'), follow('STDERR', 'text/event-stream')]);
  const log = parseEvents(events.toString());
  expect(log.pop()).toMatchObject({ event: 'end' });
  const stderr = Buffer.concat(log.map(({ data }) => Buffer.from(JSON.parse(data).data, 'base64')));
  const { json: execution } = await clients.rest('GET', `/executions/${id}`);
  expect(execution).toMatchObject({ state: 'SUCCEEDED', attempt: 1 });
  return { id, output: execution.outputJson, stdout, stderr };
}

/** The output alone, over the path of the module; its log is read when all is over. */
async function runModulePath(plan: Planned): Promise<Seen> {
  const name = plan.kind === 'module' ? 'writer' : 'reused-writer';
  const answer = await clients.rest('POST', `/run/${name}`, plan.input);
  expect(answer.status, answer.text).toBe(200);
  const id = String(answer.headers['harrier-execution-id']);
  return { id, output: answer.text, ...(await storedLog(id, 0, 0)) };
}

async function storedLog(
  id: string,
  stdoutOffset: number,
  stderrOffset: number,
): Promise<{ stdout: Buffer; stderr: Buffer }> {
  const log = new LogCollector({ stdout: stdoutOffset, stderr: stderrOffset });
  const offsets = { stdoutOffset: BigInt(stdoutOffset), stderrOffset: BigInt(stderrOffset) };
  for await (const { chunk } of stack.executions.readLogs({ id, ...offsets })) log.add(chunk);
  return { stdout: log.stdout, stderr: log.stderr };
}

/** Compares without printing megabytes when they differ. */
function expectBytes(what: string, seen: Buffer, wanted: Buffer): void {
  if (seen.equals(wanted)) return;
  const at = seen.findIndex((byte, i) => byte !== wanted[i]);
  throw new Error(`${what}: ${seen.length} bytes, not ${wanted.length}; the first difference is at ${at}`);
}

beforeAll(async () => {
  const writer = { version: '1.0.0', code: fixture('writer.py') };
  await stack.modules.createModule({ module: { ...writer, name: 'writer' } });
  await stack.modules.createModule({ module: { ...writer, name: 'reused-writer', reuse: true } });
});

async function forEachPlan(work: (plan: Planned) => Promise<void>): Promise<void> {
  const numbers = Array.from({ length: COUNT }, (_, i) => i).values();
  const caller = async () => {
    for (const number of numbers) await work(planned(number));
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
}

test(`${COUNT} executions of every kind over every protocol: each result and each live log is the right one`, async () => {
  await forEachPlan(async (plan) => {
    const byPath = plan.protocol === 'REST' && plan.kind.endsWith('module') && plan.number % 2 === 0;
    const run = plan.protocol !== 'REST' ? runStreamed : byPath ? runModulePath : runRest;
    const seen = await run(plan);
    const wanted = expected(plan);
    const what = `execution ${plan.number} (${plan.kind}, ${plan.protocol})`;
    expect(seen.output, what).toBe(wanted.output);
    expectBytes(`${what} stdout`, seen.stdout, wanted.stdout);
    expectBytes(`${what} stderr`, seen.stderr, wanted.stderr);
    done.set(plan.number, seen);
  });
  expect(new Set([...done.values()].map(({ id }) => id)).size).toBe(COUNT);
});

test('the stored logs are the same bytes, from any offset, also beyond the end', async () => {
  await forEachPlan(async (plan) => {
    const random = randomNumbers(plan.number + COUNT);
    const seen = done.get(plan.number);
    if (seen === undefined) throw new Error(`execution ${plan.number} did not end well`);
    const wanted = expected(plan);
    const from = (length: number) => Math.floor(random() * (length + 2));
    const [out, err] = [from(wanted.stdout.length), from(wanted.stderr.length)];
    const { stdout, stderr } = await storedLog(seen.id, out, err);
    expectBytes(`stdout of ${plan.number} from ${out}`, stdout, wanted.stdout.subarray(out));
    expectBytes(`stderr of ${plan.number} from ${err}`, stderr, wanted.stderr.subarray(err));
    if (plan.number % 5 !== 0) return;
    const text = await clients.rest('GET', `/executions/${seen.id}/logs?stream=STDOUT&stdout_offset=${out}`);
    expectBytes(`stdout of ${plan.number} from ${out} as text`, text.bytes, wanted.stdout.subarray(out));
  });
});

test('both agents took part, and nothing was tried twice', async () => {
  const agents = new Map<string, number>();
  for (const { id } of done.values()) {
    const { execution } = await stack.executions.getExecution({ id });
    expect(execution?.attempts).toMatchObject([{ number: 1, agentId: execution?.agentId, state: execution?.state }]);
    agents.set(execution?.agentId ?? '', (agents.get(execution?.agentId ?? '') ?? 0) + 1);
  }
  expect(agents.size).toBe(2);
  expect(Math.min(...agents.values())).toBeGreaterThan(COUNT / 10);
});
