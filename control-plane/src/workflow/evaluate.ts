import { create } from '@bufbuild/protobuf';
import {
  type CreateExecutionRequest,
  CreateExecutionRequestSchema,
  type ExecuteRequest,
} from '@harrier/shared/gen/execution';
import type { Workflow } from '@harrier/shared/gen/workflow';
import { type Bindings, type Budget, type Expression, ExpressionError, type Json } from './expression.ts';
import type { GraphNode } from './graph.ts';
import { expressionsOf, outputOf } from './graph-expressions.ts';
import { graphWithin, type Instance, nodeOf, ownerOf, type Run, type Stored } from './run-state.ts';
import type { RunValues } from './run-values.ts';
import { shown } from './shown-value.ts';
import { objectOf } from './value-reading.ts';

/** Items of a map. */
const MAX_ITEMS = 10_000;
/** A value that a run keeps, as JSON text. */
const MAX_VALUE_BYTES = 8 * 1024 * 1024;

/** What an instance in phase `compute` or `output` is told. */
export type Computed = { value?: Stored; items?: number; dueMs?: number };

/** What is wrong with the input of a workflow, for people; undefined: it satisfies its schema. @param bytes of it as JSON */
export type CheckInput = (workflow: Workflow, input: Json, bytes: number) => string | undefined;

/** @param nowMs when a wait begins. @throws ExpressionError */
export async function compute(
  run: Run,
  values: RunValues,
  instance: Instance,
  { nowMs, checkInput }: { nowMs: number; checkInput: CheckInput },
): Promise<Computed> {
  const { path, phase } = instance;
  const node = nodeOf(run.graph, path);
  if (phase === 'output' || node === undefined) return { value: stored(await graphOutput(run, values, path)) };
  const owner = ownerOf(instance);
  if (node.kind === 'workflow') return { value: await workflowInput(values, node, instance, checkInput) };
  const { kind } = node.definition;
  if (kind.case === 'wait' && kind.value.until.case === 'duration') {
    const { seconds, nanos } = kind.value.until.value;
    return { dueMs: nowMs + Number(seconds) * 1000 + nanos / 1e6 };
  }
  const { value: expression } = expressionsOf(node);
  if (expression === undefined) return {};
  const value = await values.evaluated(
    (reading) => reading.bindings(owner, [expression]),
    (bindings, budget) => expression.evaluate(bindings, budget),
  );
  if (node.kind === 'wait') return { dueMs: timeOf(expression, value) };
  if (node.kind !== 'map') return { value: stored(value) };
  if (!Array.isArray(value)) throw new ExpressionError(`"${expression.text}" is ${shown(value)}, which is not a list`);
  if (value.length > MAX_ITEMS) {
    throw new ExpressionError(`"${expression.text}" has ${value.length} items; a map takes at most ${MAX_ITEMS}`);
  }
  return { value: stored(value), items: value.length };
}

/** The edges that are taken, by index, the variables that are set, and why. */
export interface Decision {
  taken: number[];
  variables?: Record<string, Json>;
  why: string;
}

/** The edges that a node takes, and what it sets. @throws ExpressionError */
export async function decide(values: RunValues, node: GraphNode, instance: Instance): Promise<Decision> {
  const { edges, variables } = expressionsOf(node);
  const expressions = [...edges.filter((edge) => edge !== undefined), ...variables.map(([, expression]) => expression)];
  return await values.evaluated(
    (reading) => reading.bindings(ownerOf(instance), expressions, instance),
    (bindings, budget) => budget.spend(() => decideNow(node, bindings, budget)),
  );
}

function decideNow(node: GraphNode, bindings: Bindings, budget: Budget): Decision {
  const { edges, variables } = expressionsOf(node);
  const taken: number[] = [];
  const why: string[] = [];
  const isCondition = node.kind === 'condition';
  for (const { index, to, isDefault } of node.outgoing) {
    const edge = edges[index];
    if (edge === undefined) {
      if (!isDefault && !isCondition) taken.push(index);
      continue;
    }
    if (isCondition && taken.length > 0) break;
    const value = edge.evaluate(bindings, budget);
    if (typeof value !== 'boolean')
      throw new ExpressionError(`"${edge.text}" is ${shown(value)}, neither true nor false`);
    why.push(`"${edge.text}" is ${value}: ${to} is ${value ? 'taken' : 'not taken'}`);
    if (value) taken.push(index);
  }
  const conditionMet = node.outgoing.some(({ index }) => edges[index] !== undefined && taken.includes(index));
  const otherwise = node.outgoing.find(({ isDefault }) => isDefault);
  if (otherwise !== undefined && !conditionMet) {
    taken.push(otherwise.index);
    why.push(`no condition is met: ${otherwise.to} is taken`);
  }
  if (variables.length === 0) return { taken, why: why.join('; ') };
  const set = Object.fromEntries(variables.map(([name, expression]) => [name, expression.evaluate(bindings, budget)]));
  for (const [name, value] of Object.entries(set)) {
    if (!isStorable(value))
      throw new ExpressionError(`${name} would be ${shown(value)}, with a character that cannot be stored`);
  }
  for (const [name, value] of Object.entries(set)) why.push(`${name} is set to ${shown(value)}`);
  return { taken, variables: set, why: why.join('; ') };
}

/** What is asked for to run an instance. @param key makes it the same execution, however often it is asked for */
export async function executionRequest(
  values: RunValues,
  node: GraphNode,
  instance: Instance,
  key: string,
  labels: Readonly<Record<string, string>>,
): Promise<CreateExecutionRequest> {
  const { kind } = node.definition;
  const run =
    kind.case === 'run'
      ? kind.value
      : kind.case === 'map' && kind.value.body.case === 'run'
        ? kind.value.body.value
        : undefined;
  if (run === undefined) throw new Error(`${instance.path} runs nothing`);
  const { $typeName, ...fields }: ExecuteRequest = run;
  const input = JSON.stringify(await nodeInput(values, node, instance));
  return create(CreateExecutionRequestSchema, {
    ...fields,
    inputForm: { case: 'inputJson', value: input },
    idempotencyKey: key,
    labels: { ...labels, ...fields.labels },
  });
}

/** The input of a workflow within the run, which has to satisfy its schema as that of a run of its own would. */
async function workflowInput(
  values: RunValues,
  node: GraphNode,
  instance: Instance,
  checkInput: CheckInput,
): Promise<Stored> {
  const input = await nodeInput(values, node, instance);
  const value = stored(input);
  const workflow = node.body?.definition;
  if (workflow?.$typeName !== 'harrier.v1.Workflow' || workflow.inputSchema === undefined) return value;
  const violations = await values.evaluated(
    () => () => input,
    (checked) => checkInput(workflow, checked, Buffer.byteLength(value.json)),
  );
  if (violations === undefined) return value;
  const { name, version } = workflow;
  throw new ExpressionError(`the input does not satisfy the input schema of ${name} ${version}: ${violations}`);
}

async function nodeInput(values: RunValues, node: GraphNode, instance: Instance): Promise<Json> {
  const { input } = expressionsOf(node);
  const isItem = instance.item !== undefined;
  const owner = isItem ? instance.path : ownerOf(instance);
  if (input !== undefined) {
    const value = await values.evaluated(
      (reading) => reading.bindings(owner, input.expressions),
      (bindings, budget) => input.evaluate(bindings, budget),
    );
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
    throw new ExpressionError(`the input is ${shown(value)}, which is not an object`);
  }
  return await values.evaluated(
    async (reading) => {
      if (isItem) {
        const item = reading.itemOf(instance);
        return () => objectOf(item(), 'item');
      }
      const variables = reading.variablesOf(owner);
      if (node.predecessors.length > 0) return await reading.overlaid(owner, node.predecessors, variables);
      const given = reading.inputOf(owner);
      return () => ({ ...variables, ...objectOf(given(), 'input') });
    },
    (value): Json => value,
  );
}

async function graphOutput(run: Run, values: RunValues, path: string): Promise<Json> {
  const graph = graphWithin(run.graph, path);
  if (graph === undefined) return null;
  const output = outputOf(graph);
  if (output !== undefined) {
    return await values.evaluated(
      (reading) => reading.bindings(path, output.expressions),
      (bindings, budget) => output.evaluate(bindings, budget),
    );
  }
  const leaves = graph.leaves.map(({ id }) => id);
  return await values.evaluated(
    (reading) => reading.overlaid(path, leaves, {}),
    (value) => value,
  );
}

function timeOf({ text }: Expression, value: Json): number {
  const ms = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(ms)) throw new ExpressionError(`"${text}" is ${shown(value)}, which is not a time`);
  return ms;
}

function stored(value: Json): { json: string } {
  const json = JSON.stringify(value);
  const bytes = Buffer.byteLength(json);
  if (bytes > MAX_VALUE_BYTES)
    throw new ExpressionError(`the value takes ${bytes} bytes as JSON, of at most ${MAX_VALUE_BYTES}`);
  return { json };
}

/** Variables are stored as JSON that PostgreSQL reads: without NUL and halves of characters. */
function isStorable(value: Json): boolean {
  if (typeof value === 'string') return value.isWellFormed() && !value.includes('\0');
  if (typeof value !== 'object' || value === null) return true;
  if (Array.isArray(value)) return value.every(isStorable);
  return Object.entries(value).every(([key, child]) => isStorable(key) && isStorable(child));
}
