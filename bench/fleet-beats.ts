import { fileURLToPath } from 'node:url';
import { connect } from '../control-plane/src/db/connection.ts';
import type { Sql } from '../control-plane/src/db/sql.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import type { ExternalPostgres } from '../test/support/postgres.ts';
import { Program } from '../test/support/program.ts';
import { until, within } from '../test/support/wait.ts';
import { directory, environment } from '../test/support/workspace.ts';
import { cpuPercent, residentMib } from './process-usage.ts';
import { FleetIdentity } from './simulated-agent.ts';
import { median } from './statistics.ts';

const AGENTS = 5_000;
const SIMULATORS = 2;
const LINK_DEADLINE_MS = 300_000;
const SETTLE_MS = 10_000;
const ROUNDS = 3;
const ROUND_SECONDS = 10;

/** A fleet that beats every second and has nothing to do, on one replica. Its processes are not counted. */
export async function measureFleet(postgres: ExternalPostgres): Promise<Record<string, number>> {
  const controlPlane = await ControlPlane.start({ databaseUrl: postgres.url });
  const sql = connect({ url: postgres.url }, 1);
  const simulators: Program[] = [];
  try {
    await insertAgents(sql);
    const { pid } = controlPlane.program;
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const emptyMib = residentMib(pid);
    const startMs = performance.now();
    for (let n = 0; n < SIMULATORS; n++) {
      simulators.push(startSimulator(controlPlane.url, (AGENTS / SIMULATORS) * n, AGENTS / SIMULATORS));
    }
    const linked = Promise.all(simulators.map(untilLinked));
    await within('the fleet to be linked', linked, LINK_DEADLINE_MS);
    const linkSeconds = (performance.now() - startMs) / 1000;
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const writtenBefore = await rowsWritten(sql);
    const cpu: number[] = [];
    for (let round = 0; round < ROUNDS; round++) cpu.push(await cpuPercent([pid], ROUND_SECONDS));
    const written = [...(await rowsWritten(sql))].map(([table, rows]) => ({
      table,
      rows: rows - (writtenBefore.get(table) ?? 0),
    }));
    const ofAgents = written.find(({ table }) => table === 'agents')?.rows;
    if (ofAgents !== 0) throw new Error(`${ofAgents} rows of agents were written while they did nothing but beat`);
    for (const { running, stderr } of simulators) if (!running) throw new Error(`a simulator ended:\n${stderr}`);
    return {
      fleet_5000_rows_written: written.reduce((sum, { rows }) => sum + rows, 0),
      fleet_5000_links_per_s: AGENTS / linkSeconds,
      fleet_5000_cpu_percent: median(cpu),
      fleet_5000_kib_per_agent: ((residentMib(pid) - emptyMib) * 1024) / AGENTS,
    };
  } finally {
    for (const simulator of simulators) if (simulator.running) await simulator.stop('SIGKILL');
    await sql.end();
    await controlPlane.stop();
  }
}

/** As if they had joined before: what a join costs is paid once. */
async function insertAgents(sql: Sql): Promise<void> {
  const rows = Array.from({ length: AGENTS }, (_, n) => {
    const { id, name, publicKey } = new FleetIdentity(n);
    return { id, name, key: Buffer.from(publicKey).toString('hex') };
  });
  await sql`
    INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots)
    SELECT agent.id, tenants.id, agent.name, decode(key, 'hex'), '', '', 0, 1
    FROM tenants, json_to_recordset(${JSON.stringify(rows)}::text::json) AS agent(id uuid, name text, key text)`;
}

function startSimulator(url: string, first: number, count: number): Program {
  const file = fileURLToPath(new URL('./fleet-simulator.ts', import.meta.url));
  return new Program({
    argv: [process.execPath, file, url, String(first), String(count)],
    env: environment(),
    cwd: directory('fleet'),
  });
}

async function untilLinked(simulator: Program): Promise<void> {
  await until(
    'a simulator to have linked its agents',
    () => {
      if (!simulator.running) throw new Error(`a simulator ended:\n${simulator.stderr}`);
      return simulator.stdout.includes('linked');
    },
    { deadlineMs: LINK_DEADLINE_MS },
  );
}

/** By table; but for the row that says that the replica lives. */
async function rowsWritten(sql: Sql): Promise<Map<string, number>> {
  const rows = await sql<{ table: string; written: number }[]>`
    SELECT relname AS table, (n_tup_ins + n_tup_upd + n_tup_del)::float8 AS written FROM pg_stat_user_tables
    WHERE relname <> 'replicas'`;
  return new Map(rows.map(({ table, written }) => [table, written]));
}
