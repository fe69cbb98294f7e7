import { randomUUID } from 'node:crypto';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { connect } from '../control-plane/src/db/connection.ts';
import { assignClaims, readLanes } from '../control-plane/src/db/queries/claim-executions.ts';
import { nextDueTime } from '../control-plane/src/db/queries/queue-state.ts';
import type { Sql } from '../control-plane/src/db/sql.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import type { ExternalPostgres } from '../test/support/postgres.ts';
import { median, timeEach } from './statistics.ts';

const FEW = 10_000;
const MANY = 1_000_000;
/** As the scheduler reads it. */
const PAGE_ENTRIES = 250;
const LANES = 500;
/** The lane of what can be placed. */
const PLACEABLE = 'placeable';
const CLAIMED_AT_ONCE = 50;
const CLAIMS = 60;

/** What a pass of the scheduler asks the database for, with a short queue and with a very long one. */
export async function measureClaims(postgres: ExternalPostgres): Promise<Record<string, number>> {
  // It makes the tables.
  const controlPlane = await ControlPlane.start({ databaseUrl: postgres.url });
  await controlPlane.stop();
  const sql = connect({ url: postgres.url }, 1);
  try {
    const few = [await claimTimes(sql, FEW)];
    const many = await claimTimes(sql, MANY);
    // What was slow for another reason is not counted for one of the two.
    few.push(await claimTimes(sql, FEW));
    const claim_10k_queued_ms = median(few.flat());
    const claim_1m_queued_ms = median(many);
    const claim_behind_1m_blocked_ms = median(await claimTimes(sql, FEW, MANY));
    return {
      claim_10k_queued_ms,
      claim_1m_queued_ms,
      claim_slowdown_1m_queued: claim_1m_queued_ms / claim_10k_queued_ms,
      claim_behind_1m_blocked_ms,
    };
  } finally {
    await sql.end();
  }
}

/** @param blocked entries before them that ask for what no agent has */
async function claimTimes(sql: Sql, queued: number, blocked = 0): Promise<number[]> {
  await sql`TRUNCATE executions, execution_queue, events`;
  await sql`
    WITH tenant AS (SELECT id FROM tenants LIMIT 1), inserted AS (
      INSERT INTO executions (id, tenant_id, state, task_class, priority, request, input_json, json_text)
      SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, tenant.id, ${State.PENDING}, 'cpu_short', 0,
        decode(repeat('ab', 200), 'hex'), '{"n": 1}', true
      FROM tenant, generate_series(1, ${blocked + queued}::int) AS n
      RETURNING id, tenant_id
    )
    INSERT INTO execution_queue (execution_id, tenant_id, task_class, priority, shape)
    SELECT id, tenant_id, 'cpu_short', 0, CASE WHEN row_number() OVER (ORDER BY id) > ${blocked} THEN ${PLACEABLE} ELSE 'blocked' END
    FROM inserted`;
  // As autovacuum leaves it: a plan must not hang on the lack of statistics.
  await sql`ANALYZE executions, execution_queue`;
  await sql`CHECKPOINT`;
  const agentId = randomUUID();
  return await timeEach(CLAIMS, async () => {
    await nextDueTime(sql);
    const lanes = await readLanes(sql, { after: undefined, lanes: LANES, entries: PAGE_ENTRIES });
    const waiting = lanes.flatMap(({ key, entries }) => (key.shape === PLACEABLE ? entries : []));
    const claims = waiting.slice(0, CLAIMED_AT_ONCE).map(({ id }) => ({ id, agentId, reservation: null }));
    const claimed = await assignClaims(sql, claims, State.ASSIGNED);
    if (claimed.length !== CLAIMED_AT_ONCE) throw new Error(`${claimed.length} were claimed, not ${CLAIMED_AT_ONCE}`);
  });
}
