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
 * The chain of nodes that decided how long a run took: from the node that ended last, each time to the node that ended last of
 * those before it that had ended when it began. A node that joins ANY begins while others before it still run, and they did not
 * make it late. What was passed over is not named, and leads on to what it had to wait for.
 * @param rows of the nodes of the outermost graph
 */
export function criticalPath(graph: Graph, rows: readonly WorkflowNodeRow[]): string[] {
  const spans = new Map<string, Span>();
  for (const row of rows) {
    const { endMs, startMs } = decodeInstance(row);
    if (endMs === undefined || !graph.nodes.has(row.path)) continue;
    spans.set(row.path, { beginMs: startMs ?? endMs, endMs, wasBegun: startMs !== undefined });
  }
  const path: string[] = [];
  let from: Iterable<string> = spans.keys();
  let atMs = Number.POSITIVE_INFINITY;
  while (true) {
    const last = lastOf(from, spans, atMs);
    const span = last === undefined ? undefined : spans.get(last);
    if (last === undefined || span === undefined) return path.toReversed();
    if (span.wasBegun) path.push(last);
    from = graph.nodes.get(last)?.predecessors ?? [];
    atMs = span.beginMs;
  }
}

interface Span {
  beginMs: number;
  endMs: number;
  /** Not passed over. */
  wasBegun: boolean;
}

/** The one that ended last by a time; of several the first. */
function lastOf(ids: Iterable<string>, spans: ReadonlyMap<string, Span>, byMs: number): string | undefined {
  let last: string | undefined;
  let lastMs = Number.NEGATIVE_INFINITY;
  for (const id of ids) {
    const endMs = spans.get(id)?.endMs;
    if (endMs === undefined || endMs > byMs || endMs <= lastMs) continue;
    last = id;
    lastMs = endMs;
  }
  return last;
}
