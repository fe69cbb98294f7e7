import { setTimeout as pause } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import {
  WorkflowLogEntry_Level as Level,
  type WatchWorkflowRunRequest,
  type WatchWorkflowRunResponse,
  WatchWorkflowRunResponseSchema,
} from '@harrier/shared/gen/workflow';
import { listWorkflowLog, listWorkflowNodes } from '../db/queries/workflow-runs.ts';
import type { Sql } from '../db/sql.ts';
import { ChangeSignal } from './change-signal.ts';
import { nodeMessage } from './workflow-run-message.ts';
import type { WorkflowService } from './workflow-service.ts';

/** How often a run of another replica is looked at; what changes here is seen at once, if nothing was for a while. */
const LOOK_MS = 500;
/** Between two looks: a watcher of a run that hurries along does not slow it down. */
const PAUSE_MS = 50;
const LOG_LINES = 500;

/** Follows runs for callers. */
export class WorkflowWatcher {
  readonly #sql: Sql;
  readonly #workflows: WorkflowService;
  /** Of runs that somebody watches. */
  readonly #changed = new Map<string, { signal: ChangeSignal; watchers: number }>();

  constructor(sql: Sql, workflows: WorkflowService) {
    this.#sql = sql;
    this.#workflows = workflows;
  }

  /** A run of this replica has changed. */
  changed(runId: string): void {
    this.#changed.get(runId)?.signal.notify();
  }

  /** Node changes and lines of the log as they are stored, and the run when it has ended. @throws HarrierError not_found */
  async *watch(
    tenantId: string,
    request: WatchWorkflowRunRequest,
    signal: AbortSignal,
  ): AsyncIterable<WatchWorkflowRunResponse> {
    const { id } = request;
    const graph = await this.#workflows.graphOf(await this.#workflows.runRow(tenantId, id));
    const known = this.#changed.get(id) ?? { signal: new ChangeSignal(), watchers: 0 };
    this.#changed.set(id, known);
    known.watchers++;
    let revision = 0;
    let after = Number(request.afterSequence);
    const minLevel = request.minLevel || Level.INFO;
    try {
      while (true) {
        // Read before what it says is looked at: an end is told after everything else.
        const row = await this.#workflows.runRow(tenantId, id);
        const nodes = await listWorkflowNodes(this.#sql, tenantId, id, revision);
        for (const node of nodes.toSorted((a, b) => a.revision - b.revision)) {
          revision = Math.max(revision, node.revision);
          yield event({ case: 'node', value: nodeMessage(node, graph) });
        }
        let lines = await listWorkflowLog(this.#sql, tenantId, id, { after, minLevel, limit: LOG_LINES });
        while (lines.length > 0) {
          for (const { sequence, time, level, path, message } of lines) {
            after = Number(sequence);
            const value = {
              sequence: BigInt(sequence),
              time: timestampFromDate(time),
              level: level as Level,
              path,
              message,
            };
            yield event({ case: 'log', value: { $typeName: 'harrier.v1.WorkflowLogEntry', ...value } });
          }
          lines = await listWorkflowLog(this.#sql, tenantId, id, { after, minLevel, limit: LOG_LINES });
        }
        if (row.end_time !== null) {
          yield event({ case: 'result', value: await this.#workflows.getRun(tenantId, id) });
          return;
        }
        const lookedMs = performance.now();
        await known.signal.wait(signal, LOOK_MS);
        const leftMs = PAUSE_MS - (performance.now() - lookedMs);
        if (leftMs > 0) await pause(leftMs, undefined, { signal });
      }
    } finally {
      known.watchers--;
      if (known.watchers === 0) this.#changed.delete(id);
    }
  }
}

function event(value: WatchWorkflowRunResponse['event']): WatchWorkflowRunResponse {
  return create(WatchWorkflowRunResponseSchema, { event: value });
}
