import type { Sql } from '../sql.ts';

/** One step of a run, or several at once. Times are ISO texts: they travel in a JSON document. */
export interface NewStep {
  run_id: string;
  tenant_id: string;
  /** The one that advances it. */
  replica_id: string;
  /** WorkflowRun.State */
  state: number;
  root: unknown;
  next_turn: number;
  revision: number;
  log_sequence: number;
  output_json: string | null;
  start_time: string | null;
  end_time: string | null;
  nodes: {
    path: string;
    instance: unknown;
    input_json: string | null;
    output_json: string | null;
    execution_id: string | null;
  }[];
  log: { sequence: number; time: string; level: number; path: string; message: string }[];
  /** Of the inbox, that it has taken into account. */
  heard: number[];
}

/**
 * Stores steps of different runs in one statement.
 * @returns for each, in order, whether it was stored: false when another replica advances the run by now
 */
export async function storeSteps(sql: Sql, steps: NewStep[]): Promise<boolean[]> {
  const stored = await sql<{ id: string }[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(steps)}::text::json) AS input(
        run_id uuid, tenant_id uuid, replica_id uuid, state smallint, root jsonb, next_turn int, revision int,
        log_sequence bigint, output_json text, start_time timestamptz, end_time timestamptz, nodes json, log json, heard json)
    ), run AS (
      UPDATE workflow_runs AS run SET state = input.state, root = input.root, next_turn = input.next_turn,
        revision = input.revision, log_sequence = input.log_sequence, output_json = input.output_json,
        start_time = input.start_time, end_time = input.end_time
      FROM input
      WHERE run.tenant_id = input.tenant_id AND run.id = input.run_id AND run.replica_id = input.replica_id
      RETURNING run.id, run.tenant_id, run.state, run.revision, run.end_time, run.workflow, run.version,
        -- As it was before this statement.
        (SELECT before.end_time FROM workflow_runs AS before
         WHERE before.tenant_id = run.tenant_id AND before.id = run.id) AS ended_before
    ), nodes AS (
      INSERT INTO workflow_nodes (tenant_id, run_id, path, instance, input_json, output_json, execution_id, revision)
      SELECT run.tenant_id, run.id, node.path, node.instance, node.input_json, node.output_json, node.execution_id, run.revision
      FROM run JOIN input ON input.run_id = run.id, json_to_recordset(input.nodes) AS node(
        path text, instance jsonb, input_json text, output_json text, execution_id uuid)
      ON CONFLICT (run_id, path) DO UPDATE SET instance = excluded.instance, input_json = coalesce(excluded.input_json, workflow_nodes.input_json),
        output_json = coalesce(excluded.output_json, workflow_nodes.output_json), execution_id = excluded.execution_id, revision = excluded.revision
    ), log AS (
      INSERT INTO workflow_log (tenant_id, run_id, sequence, time, level, path, message)
      SELECT run.tenant_id, run.id, line.sequence, line.time, line.level, line.path, line.message
      FROM run JOIN input ON input.run_id = run.id, json_to_recordset(input.log) AS line(
        sequence bigint, time timestamptz, level smallint, path text, message text)
      ON CONFLICT DO NOTHING
    ), heard AS (
      DELETE FROM workflow_inbox USING run JOIN input ON input.run_id = run.id, json_array_elements_text(input.heard) AS word(id)
      WHERE workflow_inbox.id = word.id::bigint AND workflow_inbox.tenant_id = run.tenant_id AND workflow_inbox.run_id = run.id
    ), told AS (
      INSERT INTO events (tenant_id, type, data)
      SELECT run.tenant_id, 'workflow.finished', jsonb_build_object('id', run.id, 'workflow', run.workflow,
        'version', run.version, 'state', run.state)
      FROM run WHERE run.end_time IS NOT NULL AND run.ended_before IS NULL
    )
    SELECT id FROM run`;
  const ids = new Set(stored.map(({ id }) => id));
  return steps.map(({ run_id }) => ids.has(run_id));
}
