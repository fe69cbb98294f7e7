import { create, fromJson, type JsonValue, type MessageInitShape } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Workflow, type WorkflowNodeSchema, WorkflowSchema } from '@harrier/shared/gen/workflow';
import { expectedRunOutput } from '../expected.ts';
import type { NodePlan, WorkflowPlan } from '../workflow-plan.ts';
import { BACKOFF, jobInput, type Surroundings, whatToRun } from './request.ts';

type NodeFields = MessageInitShape<typeof WorkflowNodeSchema>;

/** The workflow of a planned run. What each job is told comes with the input of the run. */
export function definitionOf(plan: WorkflowPlan, surroundings: Surroundings): Workflow {
  const outputs = Object.keys(expectedRunOutput(plan)).map((id) => [id, expression(`nodes.${id}.output`)]);
  return create(WorkflowSchema, {
    name: plan.key,
    version: '1.0.0',
    nodes: plan.nodes.map((node) => nodeOf(node, surroundings)),
    edges: plan.edges.map(({ from, to, when = '', isDefault = false }) => ({ from, to, when, default: isDefault })),
    output: fromJson(ValueSchema, Object.fromEntries(outputs)),
  });
}

/** The input of a planned run: that of each job, by node. */
export function inputOf({ nodes }: WorkflowPlan, surroundings: Surroundings): JsonValue {
  const inputs = nodes.map(({ id, jobs, kind }): [string, JsonValue] => {
    const all = jobs.map((job) => jobInput(job, surroundings));
    return [id, kind === 'map' ? all : (all[0] ?? null)];
  });
  return { jobs: Object.fromEntries(inputs) };
}

function nodeOf({ id, kind, jobs, concurrency, waitMs }: NodePlan, surroundings: Surroundings): NodeFields {
  const [job] = jobs;
  const body = job === undefined ? {} : whatToRun(job, surroundings);
  switch (kind) {
    case 'run': {
      const input = fromJson(ValueSchema, expression(`input.jobs.${id}`));
      const retry = { ...BACKOFF, codes: [Code.HANDLER_ERROR] };
      return { id, kind: { case: 'run', value: body }, input, ...(job?.isFlaky === true ? { retry } : {}) };
    }
    case 'map': {
      const items = `input.jobs.${id}`;
      return { id, kind: { case: 'map', value: { items, concurrency, body: { case: 'run', value: body } } } };
    }
    case 'condition':
      return { id, kind: { case: 'condition', value: {} } };
    case 'wait': {
      const until = {
        case: 'duration' as const,
        value: { seconds: BigInt(Math.floor(waitMs / 1000)), nanos: (waitMs % 1000) * 1e6 },
      };
      return { id, kind: { case: 'wait', value: { until } } };
    }
    case 'signal':
      return { id, kind: { case: 'signal', value: {} } };
  }
}

function expression(text: string): string {
  return `$\{${text}}`;
}
