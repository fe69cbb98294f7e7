import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { FinishedExecution } from '../db/queries/finish-executions.ts';
import { insertExecutions, type NewExecution } from '../db/queries/insert-executions.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';

type Owned<Row> = Partial<Row> & { tenant_id: string };

/** Stores an execution, waiting unless its fields say otherwise. @returns its id */
export async function insertExecution(sql: Sql, fields: Owned<NewExecution>): Promise<string> {
  const row: NewExecution = {
    id: uuidv7(),
    state: State.PENDING,
    attempt: 0,
    agent_id: null,
    module_id: null,
    module: null,
    version: null,
    task_class: 'cpu_short',
    labels: null,
    priority: 0,
    request: '',
    input_json: '{}',
    json_text: false,
    idempotency_key: null,
    replica_id: null,
    shape: '',
    reservation: null,
    concurrency_key: null,
    ...fields,
  };
  await insertExecutions(sql, [row]);
  return row.id;
}

/** The end of a first attempt, a success unless its fields say otherwise. */
export function finishedRow(fields: Owned<FinishedExecution> & { id: string; agent_id: string }): FinishedExecution {
  return {
    attempt: 1,
    state: State.SUCCEEDED,
    output_json: '{}',
    error_code: null,
    error_message: null,
    error_details: null,
    exit_code: null,
    stdout_tail: null,
    stderr_tail: null,
    stdout_bytes: 0,
    stderr_bytes: 0,
    stdout_truncated: false,
    stderr_truncated: false,
    cpu_ms: null,
    max_rss_bytes: null,
    prepare_ms: null,
    run_ms: null,
    ...fields,
  };
}
