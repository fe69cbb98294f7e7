import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import {
  WorkflowRunNode_State as NodeState,
  WorkflowRun_State as State,
  type WorkflowRun,
  WorkflowSchema,
} from '@harrier/shared/gen/workflow';
import type { Clients } from './clients.ts';
import { until } from './wait.ts';

let names = 0;

/** A node that runs Python: the body of `handler(input)`. */
export function python(body: string, more: Record<string, JsonValue> = {}): Record<string, JsonValue> {
  const source = `def handler(input):\n    ${body.replaceAll('\n', '\n    ')}\n`;
  return { run: { code: { source } }, ...more };
}

/** A workflow of nodes by id, and of edges like `a -> b` or `a -> b ? expression` or `a -> b ? default`. */
export function workflow(
  nodes: Record<string, JsonValue>,
  edges: string[],
  more: Record<string, JsonValue> = {},
): Record<string, JsonValue> {
  return {
    name: `w${++names}`,
    version: '1.0.0',
    nodes: Object.entries(nodes).map(([id, node]) => ({ id, ...(node as object) })),
    edges: edges.map((edge) => {
      const [from = '', to = '', when = ''] = edge.split(/ -> | \? /);
      return when === 'default' ? { from, to, default: true } : { from, to, when };
    }),
    ...more,
  };
}

/** Registers a workflow and starts a run of it. @returns the id of the run */
export async function startRun(
  { workflows }: Clients,
  definition: Record<string, JsonValue>,
  input: Record<string, JsonValue> = {},
): Promise<string> {
  const created = await workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, definition) });
  const name = created.workflow?.name ?? '';
  const { run } = await workflows.runWorkflow({ name, inputForm: { case: 'inputJson', value: JSON.stringify(input) } });
  return run?.id ?? '';
}

/** Waits for the end of a run. */
export async function ended({ workflows }: Clients, id: string): Promise<WorkflowRun> {
  for await (const { event } of workflows.watchWorkflowRun({ id })) {
    if (event.case === 'result') return event.value;
  }
  throw new Error(`the watch of run ${id} ended without a result`);
}

export async function getRun({ workflows }: Clients, id: string): Promise<WorkflowRun> {
  const { run } = await workflows.getWorkflowRun({ id, includeOutputs: true });
  if (run === undefined) throw new Error(`there is no run ${id}`);
  return run;
}

/** Waits until a node is in a state. */
export async function untilNode(clients: Clients, id: string, path: string, state: string): Promise<void> {
  await until(`node ${path} to be ${state}`, async () => statesOf(await getRun(clients, id))[path] === state);
}

/** States of the run ('') and its nodes, by name. */
export function statesOf({ state, nodes }: WorkflowRun): Record<string, string> {
  const states: Record<string, string> = { '': nameOf(State, state) };
  for (const node of nodes) states[node.path] = nameOf(NodeState, node.state);
  return states;
}

function nameOf(names: Record<string, number>, value: number): string {
  return Object.entries(names).find(([, number]) => number === value)?.[0] ?? '';
}
