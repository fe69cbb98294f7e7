import type { Workflow } from '@harrier/shared/gen/workflow';
import type { WorkflowRunRow } from '../db/queries/workflow-runs.ts';
import { compileGraph, type Graph } from './graph.ts';

/** Registered versions by their ids, deleted since or not; each of those asked for is there. */
export type WorkflowsOf = (tenantId: string, ids: readonly string[]) => Promise<ReadonlyMap<string, Workflow>>;

/** The graph of a run, with the workflows within it as they were when it was accepted. */
export async function pinnedGraph(
  { id, tenant_id, workflow_id, workflow: name, pinned }: WorkflowRunRow,
  workflowsOf: WorkflowsOf,
): Promise<{ workflow: Workflow; graph: Graph }> {
  const found = await workflowsOf(tenant_id, [...new Set([workflow_id, ...Object.values(pinned)])]);
  const versionOf = (versionId: string | undefined, name: string): Workflow => {
    const workflow = versionId === undefined ? undefined : found.get(versionId);
    if (workflow === undefined) throw new Error(`the run ${id} has no version of workflow ${name}`);
    return workflow;
  };
  const workflow = versionOf(workflow_id, name);
  const graph = compileGraph(workflow, (of, version) => versionOf(pinned[pinKey(of, version)], of));
  return { workflow, graph };
}

/** Names a workflow within another one, as it is written there. */
export function pinKey(name: string, version: string): string {
  return `${name}@${version}`;
}
