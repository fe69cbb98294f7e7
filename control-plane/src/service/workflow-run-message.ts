import { create, type JsonObject } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  WorkflowRunNode_State as NodeState,
  type WorkflowRun_State as State,
  type WorkflowRun,
  type WorkflowRunNode,
  WorkflowRunNodeSchema,
  WorkflowRunSchema,
} from '@harrier/shared/gen/workflow';
import type { WorkflowNodeRow, WorkflowRunRow } from '../db/queries/workflow-runs.ts';
import { executionKey } from '../workflow/execution-key.ts';
import type { Graph } from '../workflow/graph.ts';
import type { StoredInstance } from '../workflow/restore.ts';
import { nodeOf, ROOT } from '../workflow/run-state.ts';
import { decodeInstance } from '../workflow/stored-step.ts';
import { errorOf } from './execution-message.ts';
import { showable } from './json-document.ts';

const WAITS: Readonly<Record<string, string>> = {
  slot: 'for a place among the executions of the run that may run at once',
  timer: 'for its time',
  backoff: 'for its next try',
  signal: 'for a signal',
};

/** A run without its nodes. */
export function runMessage(row: WorkflowRunRow): WorkflowRun {
  const root = rootOf(row);
  const message = create(WorkflowRunSchema, {
    id: row.id,
    workflow: row.workflow,
    version: row.version,
    state: row.state as State,
    inputJson: row.input_json,
    outputJson: row.output_json ?? '',
    createTime: timestampFromMs(row.create_time.getTime()),
    labels: row.labels ?? {},
    cancelRequested: row.end_time === null && root?.stopping === 'CANCELLED',
  });
  if (row.start_time !== null) message.startTime = timestampFromMs(row.start_time.getTime());
  if (row.end_time !== null) message.endTime = timestampFromMs(row.end_time.getTime());
  if (root?.error !== undefined) message.error = errorOf(root.error);
  if (root?.variables !== undefined) message.variables = showable(root.variables as JsonObject);
  return message;
}

export function rootOf(row: WorkflowRunRow): StoredInstance | undefined {
  if (row.root === null) return undefined;
  return decodeInstance({ path: ROOT, instance: row.root, input_json: null, output_json: null, execution_id: null });
}

/** @param executionId of the try that goes on, which is not in the row */
export function nodeMessage(row: WorkflowNodeRow, graph: Graph, executionId = ''): WorkflowRunNode {
  const instance = decodeInstance(row);
  const node = nodeOf(graph, row.path);
  const message = create(WorkflowRunNodeSchema, {
    path: row.path,
    kind: instance.item === undefined ? (node?.kind ?? '') : 'item',
    state: NodeState[instance.state],
    tries: instance.tries,
    executionId: executionId === '' ? (row.execution_id ?? '') : executionId,
    waitingReason: instance.state === 'WAITING' ? (WAITS[instance.phase] ?? '') : '',
  });
  if (instance.error !== undefined) message.error = errorOf(instance.error);
  if (instance.startMs !== undefined) message.startTime = timestampFromMs(instance.startMs);
  if (instance.endMs !== undefined) message.endTime = timestampFromMs(instance.endMs);
  return message;
}

/** The key of the execution of a try that goes on; undefined: there is none. */
export function runningKey(runId: string, row: WorkflowNodeRow): string | undefined {
  const { phase, tries, path } = decodeInstance(row);
  return phase === 'execution' ? executionKey(runId, path, tries) : undefined;
}

/**
 * The chain of nodes that decided how long a run took: from its end, each time to the node that ended last of those before it.
 * @param rows of the nodes of the outermost graph
 */
export function criticalPath(graph: Graph, rows: readonly WorkflowNodeRow[]): string[] {
  const ends = new Map<string, number>();
  for (const row of rows) {
    const { endMs, startMs } = decodeInstance(row);
    if (endMs !== undefined && startMs !== undefined && graph.nodes.has(row.path)) ends.set(row.path, endMs);
  }
  const path: string[] = [];
  let from: Iterable<string> = ends.keys();
  while (true) {
    const last = lastOf(from, ends);
    if (last === undefined) return path.toReversed();
    path.push(last);
    from = graph.nodes.get(last)?.predecessors ?? [];
  }
}

function lastOf(ids: Iterable<string>, ends: ReadonlyMap<string, number>): string | undefined {
  let last: string | undefined;
  for (const id of ids) {
    const end = ends.get(id);
    if (end !== undefined && (last === undefined || end > (ends.get(last) ?? 0))) last = id;
  }
  return last;
}
