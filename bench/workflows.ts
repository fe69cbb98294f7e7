import { join } from 'node:path';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { WorkflowRun_State as State, WorkflowSchema } from '@harrier/shared/gen/workflow';
import { connect } from '../control-plane/src/db/connection.ts';
import type { Sql } from '../control-plane/src/db/sql.ts';
import { Agent } from '../test/support/agent.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { until } from '../test/support/wait.ts';
import { ended } from '../test/support/workflows.ts';
import { cpuPercent } from './process-usage.ts';
import { median } from './statistics.ts';

const ROUNDS = 5;
const CHAIN = 40;
const FANOUT = 1_000;
const CALLERS = 64;
const WAITING = 10_000;
const STARTERS = 16;
const WAITING_SECONDS = 20;
const SETTLE_MS = 5_000;
const ADD_ONE = 'def handler(input):\n    return {"n": input["n"] + 1}\n';
/** The shape that others publish: 40 tasks of about 10 ms. */
const SLEEP_10_MS = 'import time\ndef handler(input):\n    time.sleep(0.01)\n    return {}\n';

/** What a workflow costs beside the executions that it consists of, and what runs cost that wait. */
export async function benchWorkflows(_python: string, chosen: readonly string[]): Promise<Record<string, number>> {
  const controlPlane = await ControlPlane.start({ env: { HARRIER_MAX_QUEUED: '100000' } });
  const agent = Agent.start({ name: 'bench', serverUrl: controlPlane.url, joinToken: await controlPlane.joinToken() });
  await controlPlane.untilOnline(1);
  const sql = connect(
    { socketDirectory: join(controlPlane.dataDirectory, 'postgres'), user: 'harrier', database: 'postgres' },
    1,
  );
  const wanted = (part: string) => chosen.length === 0 || chosen.includes(part);
  try {
    for (const [name, code, reuse] of [
      ['add-one', ADD_ONE, true],
      ['sleep', SLEEP_10_MS, true],
    ] as const) {
      await controlPlane.clients.modules.createModule({ module: { name, version: '1.0.0', code, reuse } });
    }
    return {
      ...(wanted('chain') ? await measureChains(controlPlane) : {}),
      ...(wanted('fanout') ? await measureFanOut(controlPlane) : {}),
      ...(wanted('waiting') ? await measureWaiting(controlPlane, sql) : {}),
    };
  } finally {
    await sql.end();
    await agent.remove();
    await controlPlane.stop();
  }
}

async function measureChains(controlPlane: ControlPlane): Promise<Record<string, number>> {
  const ratios: number[] = [];
  const overheads: number[] = [];
  const tasks: number[] = [];
  await register(controlPlane, chain('chain', 'add-one'));
  await register(controlPlane, chain('sleepers', 'sleep'));
  for (let round = 0; round <= ROUNDS; round++) {
    const byHandMs = await timed(async () => {
      for (let n = 0; n < CHAIN; n++) await execute(controlPlane, 'add-one', { n });
    });
    const chainMs = await timed(() => runToEnd(controlPlane, 'chain', { n: 0 }));
    const sleepersMs = await timed(() => runToEnd(controlPlane, 'sleepers', {}));
    // The first round warms up.
    if (round === 0) continue;
    ratios.push(chainMs / byHandMs);
    overheads.push((chainMs - byHandMs) / CHAIN);
    tasks.push(sleepersMs / CHAIN);
  }
  return {
    chain_40_over_40_executes: median(ratios),
    node_overhead_p50_ms: median(overheads),
    task_of_10_ms: median(tasks),
  };
}

async function measureFanOut(controlPlane: ControlPlane): Promise<Record<string, number>> {
  const ratios: number[] = [];
  const map: JsonValue = {
    name: 'fanout',
    version: '1.0.0',
    max_parallel: CALLERS,
    nodes: [{ id: 'm', map: { items: 'input.list', run: { module: 'add-one' } } }],
  };
  await register(controlPlane, map);
  const list = Array.from({ length: FANOUT }, (_, n) => ({ n }));
  for (let round = 0; round <= 3; round++) {
    const byHandMs = await timed(async () => {
      let next = 0;
      const caller = async () => {
        for (let n = next++; n < FANOUT; n = next++) await execute(controlPlane, 'add-one', { n });
      };
      await Promise.all(Array.from({ length: CALLERS }, caller));
    });
    const fanOutMs = await timed(() => runToEnd(controlPlane, 'fanout', { list }));
    if (round > 0) ratios.push(fanOutMs / byHandMs);
  }
  return { fanout_1000_over_1000_executes: median(ratios) };
}

async function measureWaiting(controlPlane: ControlPlane, sql: Sql): Promise<Record<string, number>> {
  await register(controlPlane, {
    name: 'waits',
    version: '1.0.0',
    nodes: [
      { id: 's', signal: {} },
      { id: 'a', run: { module: 'add-one' } },
    ],
    edges: [{ from: 's', to: 'a' }],
  });
  const before = await storedKib(sql);
  // What it costs without them, with its database: what they cost is what comes on top.
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const idle = await cpuPercent([controlPlane.program.pid], WAITING_SECONDS);
  let left = WAITING;
  const starter = async () => {
    while (left-- > 0)
      await controlPlane.clients.workflows.runWorkflow({
        name: 'waits',
        inputForm: { case: 'inputJson', value: '{"n": 1}' },
      });
  };
  await Promise.all(Array.from({ length: STARTERS }, starter));
  await until('all runs to be asleep', async () => {
    const [row] = await sql<
      { awake: number }[]
    >`SELECT count(*)::int AS awake FROM workflow_runs WHERE replica_id IS NOT NULL`;
    return row?.awake === 0;
  });
  const run_kib = ((await storedKib(sql)) - before) / WAITING;
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const both = await cpuPercent([controlPlane.program.pid], WAITING_SECONDS);
  return { run_kib, idle_cpu_percent: idle, waiting_10000_cpu_percent: both - idle };
}

async function storedKib(sql: Sql): Promise<number> {
  const [row] = await sql<{ kib: number }[]>`
    SELECT sum(pg_total_relation_size(oid))::float8 / 1024 AS kib FROM pg_class WHERE relkind = 'r' AND relname LIKE 'workflow%'`;
  return row?.kib ?? Number.NaN;
}

function chain(name: string, module: string): JsonValue {
  const ids = Array.from({ length: CHAIN }, (_, n) => `n${n}`);
  return {
    name,
    version: '1.0.0',
    nodes: ids.map((id) => ({ id, run: { module } })),
    edges: ids.slice(1).map((to, n) => ({ from: `n${n}`, to })),
  };
}

async function register({ clients }: ControlPlane, definition: JsonValue): Promise<void> {
  await clients.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, definition) });
}

async function execute({ clients }: ControlPlane, module: string, input: object): Promise<void> {
  const { execution } = await clients.executions.execute({
    target: { case: 'module', value: module },
    inputForm: { case: 'inputJson', value: JSON.stringify(input) },
  });
  if (execution?.error !== undefined) throw new Error(execution.error.message);
}

async function runToEnd({ clients }: ControlPlane, name: string, input: object): Promise<void> {
  const { run } = await clients.workflows.runWorkflow({
    name,
    inputForm: { case: 'inputJson', value: JSON.stringify(input) },
  });
  const end = await ended(clients, run?.id ?? '');
  if (end.state !== State.SUCCEEDED)
    throw new Error(`run ${end.id} ended in state ${end.state}: ${end.error?.message}`);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
