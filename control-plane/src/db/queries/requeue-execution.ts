import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { Sql } from '../sql.ts';
import { fencedByLease, notFenced } from './lost-agents.ts';

export interface EndedAttempt {
  id: string;
  tenantId: string;
  attempt: number;
  agentId: string | null;
  /** Final state of the attempt. */
  state: number;
  errorCode: number | null;
  errorMessage: string | null;
  errorDetails: string | null;
  exitCode: number | null;
  stdoutBytes: number | null;
  stderrBytes: number | null;
  /** Whether its code ran. */
  ran: boolean;
  /** Only if its agent has no lease at that time. */
  leaseless?: boolean;
  /** Whether the retry policy counts it. */
  failure: boolean;
  /** Wait before the next attempt. */
  backoffMs: number;
  /** Number of PENDING. */
  pending: number;
  /** The replica that follows it from now on. */
  replicaId: string;
  /** The lane of the queue that it waits in. */
  shape: string;
}

/**
 * Ends an attempt and puts its execution back into the queue, in one transaction.
 * @returns when the next attempt is due; undefined when the attempt was not the current one any more.
 */
export async function requeueExecution(sql: Sql, ended: EndedAttempt): Promise<Date | undefined> {
  const { held, isOver } = ended.leaseless ? fencedByLease(sql, ended.agentId) : notFenced(sql);
  const [row] = await sql<{ not_before: Date }[]>`
    WITH ${held}current AS (
      UPDATE executions
      SET state = ${ended.pending}, agent_id = NULL, assign_time = NULL, start_time = NULL,
        failures = failures + ${ended.failure ? 1 : 0},
        queue_time = now() + ${ended.backoffMs}::float8 * interval '1 millisecond'
      WHERE tenant_id = ${ended.tenantId} AND id = ${ended.id} AND attempt = ${ended.attempt}
        AND agent_id IS NOT DISTINCT FROM ${ended.agentId}::uuid AND end_time IS NULL AND cancel_reason IS NULL
        ${isOver}
      RETURNING id, tenant_id, attempt, task_class, priority, queue_time
    ), before AS (
      SELECT assign_time, start_time FROM executions WHERE tenant_id = ${ended.tenantId} AND id = ${ended.id}
    ), kept AS (
      INSERT INTO attempts (tenant_id, execution_id, attempt, agent_id, state, error_code, error_message, error_details,
        exit_code, stdout_bytes, stderr_bytes, assign_time, start_time)
      SELECT tenant_id, id, attempt, ${ended.agentId}::uuid, ${ended.state}, ${ended.errorCode}::smallint,
        ${ended.errorMessage}, ${ended.errorDetails}, ${ended.exitCode}::int, ${ended.stdoutBytes}::bigint,
        ${ended.stderrBytes}::bigint, before.assign_time, before.start_time
      FROM current, before
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, attempt, agent_id, state, error_code)
      SELECT tenant_id, 'execution.started', id, attempt, ${ended.agentId}::uuid, ${State.RUNNING}::smallint, NULL
      FROM current, before WHERE ${ended.ran} AND before.start_time IS NULL
      UNION ALL
      SELECT tenant_id, 'execution.requeued', id, attempt, ${ended.agentId}::uuid, ${ended.pending}::smallint,
        ${ended.errorCode}::smallint
      FROM current
    )
    INSERT INTO execution_queue (execution_id, tenant_id, task_class, priority, not_before, replica_id, shape)
    SELECT id, tenant_id, task_class, priority, queue_time, ${ended.replicaId}::uuid, ${ended.shape} FROM current
    RETURNING not_before`;
  return row?.not_before;
}
