import { WorkflowLogEntry_Level as Level, WorkflowRun_State as State } from '@harrier/shared/gen/workflow';
import type { WorkflowNodeRow } from '../db/queries/workflow-runs.ts';
import type { NewStep } from '../db/queries/workflow-steps.ts';
import { isStored, type StoredInstance } from './restore.ts';
import type { Stepped } from './run-actor.ts';
import { type Instance, isOver, newInstance, ROOT, type Stored } from './run-state.ts';

/** What counts the steps of a run, and the lines of its log. */
export interface Counters {
  revision: number;
  logSequence: number;
  /** Values that are stored already: they may be large, and never change. */
  stored: WeakSet<Stored>;
}

/** What an instance is without what has columns of its own, and without what is as it is at first. */
type Encoded = Record<string, unknown>;

/** A step as it is stored. @param counters are moved on */
export function encodeStep(
  { run, changed, log, heard }: Stepped,
  { tenantId, replicaId, counters }: { tenantId: string; replicaId: string; counters: Counters },
): NewStep {
  const root = run.instances.get(ROOT);
  if (root === undefined) throw new Error(`the run ${run.id} has no root`);
  counters.revision++;
  const lines = log.map(({ level, path, message, ms }) => {
    const sequence = ++counters.logSequence;
    return { sequence, time: new Date(ms).toISOString(), level: Level[level], path, message: storableText(message) };
  });
  const nodes = changed.filter((instance) => instance.path !== ROOT && isStored(instance));
  return {
    run_id: run.id,
    tenant_id: tenantId,
    replica_id: replicaId,
    state: stateOf(root),
    root: encodeInstance(root),
    next_turn: run.nextTurn,
    revision: counters.revision,
    log_sequence: counters.logSequence,
    output_json: root.state === 'SUCCEEDED' ? jsonIn(root.output) : null,
    start_time: timeOf(root.startMs),
    end_time: isOver(root) ? timeOf(root.endMs) : null,
    nodes: nodes.map((instance) => ({
      path: instance.path,
      instance: encodeInstance(instance),
      input_json: newJson(instance.input, counters),
      output_json: newJson(instance.output, counters),
      execution_id: instance.executionId ?? null,
    })),
    log: lines,
    heard: [...heard],
  };
}

/** How much of values is in a step, and of lines of the log, which tell the errors that are in it too, in characters. */
export function charsOfStep({ output_json, nodes, log }: NewStep): number {
  const length = (text: string | null) => text?.length ?? 0;
  const told = log.reduce((sum, { message }) => sum + message.length, length(output_json));
  return nodes.reduce((sum, node) => sum + length(node.input_json) + length(node.output_json), told);
}

function stateOf({ state }: Instance): State {
  // The run itself is never skipped, and does not wait.
  if (state === 'SKIPPED' || state === 'WAITING') throw new Error(`a run cannot be ${state}`);
  return State[state];
}

/** Only what differs from a new instance: most differ in little. */
export function encodeInstance(instance: Instance): Encoded {
  const { path, parent, item, arrived, taken, active, input, output, executionId, ...rest } = instance;
  const first = newInstance(path, parent, item) as unknown as Record<string, unknown>;
  const entries = Object.entries(rest).filter(([key, value]) => value !== first[key] && value !== undefined);
  const { error } = instance;
  return {
    ...Object.fromEntries(entries),
    ...(error === undefined ? {} : { error: { ...error, message: storableText(error.message) } }),
    ...(input === undefined ? {} : { hasInput: true }),
    ...(output === undefined ? {} : { output: 'json' in output ? 'kept' : 'of execution' }),
  };
}

/** @param row of a node; of the run itself one with path '' */
export function decodeInstance(row: Omit<WorkflowNodeRow, 'revision'>): StoredInstance {
  const { hasInput, output, ...encoded } = row.instance as Encoded & { hasInput?: boolean; output?: string };
  const item = /\[(\d+)\]$/.exec(row.path)?.[1];
  const first = newInstance(row.path, parentOf(row.path), item === undefined ? undefined : Number(item));
  const executionId = row.execution_id ?? undefined;
  return {
    ...first,
    ...encoded,
    executionId,
    input: hasInput === true && row.input_json !== null ? { json: row.input_json } : undefined,
    output: outputIn(row, output),
  };
}

function outputIn(row: Omit<WorkflowNodeRow, 'revision'>, where: string | undefined): Stored | undefined {
  const { output_json, execution_id } = row;
  if (where === 'of execution' && execution_id !== null) return { executionId: execution_id };
  return where === 'kept' && output_json !== null ? { json: output_json } : undefined;
}

/** What PostgreSQL takes: no NUL, and no half of a character. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\uFFFD');
}

/** `a.m[3].b` is within `a.m[3]`, which is within `a.m`, which is within `a`, which is within the run. */
function parentOf(path: string): string | undefined {
  if (path === ROOT) return undefined;
  if (path.endsWith(']')) return path.slice(0, path.lastIndexOf('['));
  const dot = path.lastIndexOf('.');
  return dot < 0 ? ROOT : path.slice(0, dot);
}

/** Null: none, or it is stored already. */
function newJson(value: Stored | undefined, { stored }: Counters): string | null {
  if (value === undefined || stored.has(value)) return null;
  stored.add(value);
  return jsonIn(value);
}

function jsonIn(stored: Stored | undefined): string | null {
  return stored !== undefined && 'json' in stored ? stored.json : null;
}

function timeOf(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString();
}
