import { spawn } from 'node:child_process';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { ScheduleFiring_State as FiringState } from '@harrier/shared/gen/schedule';
import { afterAll, expect, test } from 'vitest';
import { audit } from '../../faults/auditor.ts';
import { type Fault, HARMLESS } from '../../faults/faults/fault.ts';
import { gatherRound, runRound } from '../../faults/machine.ts';
import { makePlan } from '../../faults/plan.ts';
import { killProcess } from '../../faults/world/kill-process.ts';
import { World } from '../../faults/world/world.ts';
import { until } from '../support/wait.ts';

// A short run of `npm run faults` (docs/faults.md): the faults that hit every part once, as this seed has them.
const SEED = 20_250_101;
const FAULTS = ['agent-kill', 'launcher-kill', 'replica-kill', 'partition-long', 'acknowledgement-lost'];
const EXECUTIONS_OF_A_FAULT = 8;

const world = await World.start({ replicas: 2, agents: 3, docker: false });
let stopped = false;
const stop = async () => {
  stopped = true;
  return await world.stop();
};
afterAll(async () => {
  if (!stopped) await stop();
});

const plan = (faults: readonly string[], executions: number, seed: number) =>
  makePlan({ seed, executions, faults, kinds: ['inline', 'command', 'venv'] });

for (const round of plan(FAULTS, FAULTS.length * EXECUTIONS_OF_A_FAULT, SEED)) {
  test(`nothing is lost, doubled or left behind: ${round.fault}`, async () => {
    const verdict = await runRound(world, round, () => undefined);
    expect(verdict.findings, world.lastLogs()).toEqual([]);
    expect(verdict).toMatchObject({ executions: EXECUTIONS_OF_A_FAULT, runs: 1 });
    expect(verdict.firings).toBeGreaterThan(5);
  });
}

test('what is planted into a real world is found: a loss, a second acceptance, bytes of a log, a node run twice, a time that is gone, a process', async () => {
  const { sql } = world;
  const [planned] = plan(['planted'], 15, SEED + 2);
  if (planned === undefined) throw new Error('the plan is empty');
  const round = { ...planned, executions: planned.executions.map((one) => ({ ...one, runMs: one.runMs % 500 })) };
  // Nobody follows these: a follower would be told that there is none any more.
  const keys = round.executions.filter(({ way, lines }) => way === 'create' && lines > 0).map(({ key }) => key);
  const runKeys = round.workflows.map(({ key }) => key);
  const [schedule] = round.schedules.map(({ key }) => key);
  let orphan: number | undefined;
  const planted: Fault = {
    ...HARMLESS,
    async run() {
      const ended = await until('four executions with a log to end', async () => {
        const rows = await sql<{ id: string }[]>`
          SELECT id FROM executions WHERE idempotency_key = ANY(${keys}) AND end_time IS NOT NULL LIMIT 4`;
        return rows.length === 4 && rows.map(({ id }) => id);
      });
      const [lost = '', twice = '', missing = '', doubled = ''] = ended;
      await sql`DELETE FROM executions WHERE id = ${lost}`;
      await sql`UPDATE executions SET end_time = now() WHERE id = ${twice}`;
      await sql`DELETE FROM log_chunks WHERE execution_id = ${missing} AND stream = 1`;
      await sql`INSERT INTO log_chunks (tenant_id, execution_id, attempt, stream, byte_offset, data)
        SELECT tenant_id, execution_id, attempt, stream, byte_offset + 1, substr(data, 1, 5) FROM log_chunks
        WHERE execution_id = ${doubled} AND stream = 1 AND byte_offset = 0 LIMIT 1`;
      const nodes = await until('a node of a workflow to end', async () => {
        const rows = await sql<{ id: string }[]>`
          SELECT execution.id FROM executions AS execution JOIN workflow_runs AS run ON execution.labels->>'workflow-run' = run.id::text
          WHERE run.idempotency_key = ANY(${runKeys}) AND execution.idempotency_key LIKE '%#1'
            AND execution.state = ${State.SUCCEEDED} AND run.end_time IS NOT NULL`;
        return rows.length > 0 && rows.map(({ id }) => id);
      });
      // Its id is that of an execution that does not fail by itself.
      await sql`INSERT INTO executions SELECT (jsonb_populate_record(execution, jsonb_build_object(
          'id', overlay(gen_random_uuid()::text placing 'f' from 36),
          'idempotency_key', regexp_replace(idempotency_key, '#1$', '#2')))).*
        FROM executions AS execution WHERE id = ${nodes[0] ?? ''}`;
      // Of a time in the middle: no record of it is left, and of its run nobody knows.
      const fired = await until('three times of a schedule to fire', async () => {
        const rows = await sql<{ time: Date }[]>`
          SELECT f.time FROM schedule_firings AS f JOIN schedules AS s ON s.id = f.schedule_id
          WHERE s.name = ${schedule ?? ''} AND f.state = ${FiringState.STARTED} ORDER BY f.time`;
        return rows.length >= 3 && rows;
      });
      await sql`DELETE FROM schedule_firings USING schedules WHERE schedules.id = schedule_id AND name = ${schedule ?? ''}
        AND time = ${fired[1]?.time ?? new Date(0)}`;
      const nap = ['-c', 'import time; time.sleep(600)'];
      orphan = spawn(world.witness.python, nap, { detached: true, stdio: 'ignore' }).pid;
      return [];
    },
  };
  const { findings } = audit(
    await gatherRound(world, round, planted, () => undefined).finally(
      () => orphan !== undefined && killProcess(orphan),
    ),
  );
  const found = Object.fromEntries(findings.map(({ offence, count }) => [offence, count]));
  expect(found).toEqual({
    lost: 1,
    'accepted twice': 1,
    'log bytes missing': expect.any(Number),
    'log bytes doubled': 5,
    'nodes twice': 1,
    'times lost': 1,
    'times twice': 1,
    'orphan processes': 1,
  });
});

test('when all is stopped, nothing of it is left', async () => {
  expect(await stop()).toEqual([]);
});
