import { join } from 'node:path';
import { connect } from '../control-plane/src/db/connection.ts';
import { Agent } from '../test/support/agent.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { type Floors, measureFloors } from './floors.ts';
import { HttpCaller } from './http-caller.ts';
import { cpuPercent, proportionalMib, residentMib } from './process-usage.ts';
import { median, quantile, timeEach } from './statistics.ts';

const ROUNDS = 3;
const WARM_UP = 100;
const CALLERS = 64;
const IDLE_SECONDS = 20;
const LOG_MIB = 256;
const FOLLOWED_LINES = 60;

const ADD_ONE = 'def handler(input):\n    return {"n": input["n"] + 1}\n';
const PRINT_MIB = `import sys
def handler(input):
    block = b"x" * 65536
    for _ in range(input["mib"] * 16):
        sys.stdout.buffer.write(block)
    return {}
`;
const PRINT_TIMES = `import time
def handler(input):
    for _ in range(input["lines"]):
        print(time.time(), flush=True)
        time.sleep(0.02)
    return {}
`;

/** Everything from one run on one machine: the executions, and the floors that they stand on. */
export async function benchCore(python: string): Promise<Record<string, number>> {
  const controlPlane = await ControlPlane.start();
  const joinToken = await controlPlane.joinToken();
  const agent = Agent.start({ name: 'bench', serverUrl: controlPlane.url, joinToken });
  await controlPlane.untilOnline(1);
  const sql = connect(
    { socketDirectory: join(controlPlane.dataDirectory, 'postgres'), user: 'harrier', database: 'postgres' },
    1,
  );
  try {
    for (const [name, reuse] of [
      ['fresh', false],
      ['reuse', true],
    ] as const) {
      await controlPlane.clients.modules.createModule({ module: { name, version: '1.0.0', code: ADD_ONE, reuse } });
    }
    await callModule(controlPlane, 'fresh', 1, 20);
    const idle = await measureIdle(controlPlane, agent);
    const rounds: Record<string, number>[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const floors = await measureFloors(sql, python);
      const calls = await measureCalls(controlPlane);
      const logs = await measureLogs(controlPlane);
      rounds.push({ ...floors, ...calls, ...logs, ...ratios(floors, calls) });
    }
    return { ...idle, ...medians(rounds) };
  } finally {
    await sql.end();
    await agent.remove();
    await controlPlane.stop();
  }
}

async function measureIdle(controlPlane: ControlPlane, agent: Agent): Promise<Record<string, number>> {
  const launcher = agent.launcherProcesses();
  const roots = [controlPlane.program.pid, agent.program.pid, ...launcher.slice(0, 1).map(({ pid }) => pid)];
  // First, so that what ends when nobody needs it has ended.
  const idle_cpu_percent = await cpuPercent(roots, IDLE_SECONDS);
  // bubblewrap's own process, the launcher and one zygote; children that are forked ahead share the zygote's pages.
  return {
    idle_control_plane_mib: residentMib(controlPlane.program.pid),
    idle_agent_mib: residentMib(agent.program.pid),
    idle_launcher_mib: proportionalMib(agent.launcherProcesses().map(({ pid }) => pid)),
    idle_cpu_percent,
  };
}

async function measureCalls(controlPlane: ControlPlane): Promise<Record<string, number>> {
  const figures: Record<string, number> = {};
  for (const [name, alone, together] of [
    ['reuse', 1000, 10_000],
    ['fresh', 600, 3_000],
  ] as const) {
    await callModule(controlPlane, name, 1, WARM_UP);
    const one = await callModule(controlPlane, name, 1, alone);
    figures[`execute_${name}_1_p50_ms`] = median(one.times);
    figures[`execute_${name}_1_p99_ms`] = quantile(one.times, 0.99);
    await callModule(controlPlane, name, CALLERS, together / 5);
    const many = await callModule(controlPlane, name, CALLERS, together);
    figures[`execute_${name}_64_per_s`] = many.perSecond;
    figures[`execute_${name}_64_p50_ms`] = median(many.times);
    figures[`execute_${name}_64_p99_ms`] = quantile(many.times, 0.99);
  }
  return figures;
}

/** `callers` at once make `count` calls in all; an answer that is not right ends the bench. */
async function callModule(
  controlPlane: ControlPlane,
  module: string,
  callers: number,
  count: number,
): Promise<{ times: number[]; perSecond: number }> {
  const path = '/harrier.v1.ExecutionService/Execute';
  const times: number[] = [];
  let next = 0;
  const startMs = performance.now();
  const work = async () => {
    const caller = new HttpCaller(controlPlane.url, path, controlPlane.adminKey);
    while (next < count) {
      const n = next++;
      const [time = 0] = await timeEach(1, async () => {
        const answer = await caller.call(JSON.stringify({ module, inputJson: `{"n":${n}}` }));
        const { state, outputJson } = JSON.parse(answer).execution;
        if (state !== 'SUCCEEDED' || JSON.parse(outputJson).n !== n + 1) throw new Error(`wrong answer: ${answer}`);
      });
      times.push(time);
    }
    caller.close();
  };
  await Promise.all(Array.from({ length: callers }, work));
  return { times, perSecond: (count / (performance.now() - startMs)) * 1000 };
}

async function measureLogs(controlPlane: ControlPlane): Promise<Record<string, number>> {
  const { executions } = controlPlane.clients;
  const bytes = BigInt(LOG_MIB * 1024 * 1024);
  const startMs = performance.now();
  const { execution } = await executions.execute({
    target: { case: 'code', value: { source: PRINT_MIB } },
    inputForm: { case: 'input', value: { mib: LOG_MIB } },
    limits: { stdoutBytes: bytes },
  });
  const seconds = (performance.now() - startMs) / 1000;
  if (execution?.stdoutBytes !== bytes) throw new Error(`${execution?.stdoutBytes} bytes of the log were stored`);
  const delays: number[] = [];
  const stream = executions.executeStream({
    target: { case: 'code', value: { source: PRINT_TIMES } },
    inputForm: { case: 'input', value: { lines: FOLLOWED_LINES } },
  });
  for await (const { event } of stream) {
    if (event.case !== 'log') continue;
    const nowMs = Date.now();
    for (const line of new TextDecoder().decode(event.value.data).trim().split('\n'))
      delays.push(nowMs - Number(line) * 1000);
  }
  return { log_store_mib_per_s: LOG_MIB / seconds, log_follow_p50_ms: median(delays) };
}

/** What Harrier adds to its parts. */
function ratios(floors: Floors, calls: Record<string, number>): Record<string, number> {
  const sum = floors.floor_echo_ms + floors.floor_commit_pair_ms + floors.floor_websocket_ms + floors.floor_pipe_ms;
  return {
    floor_sum_ms: sum,
    execute_reuse_1_over_floors: (calls.execute_reuse_1_p50_ms ?? Number.NaN) / sum,
    execute_fresh_1_over_floors_and_fork: (calls.execute_fresh_1_p50_ms ?? Number.NaN) / (sum + floors.floor_fork_ms),
  };
}

function medians(rounds: readonly Record<string, number>[]): Record<string, number> {
  const names = Object.keys(rounds[0] ?? {});
  return Object.fromEntries(names.map((name) => [name, median(rounds.map((round) => round[name] ?? Number.NaN))]));
}
