import type { ExecutionPlan } from './execution-plan.ts';
import type { WorkflowPlan } from './workflow-plan.ts';

/** What an execution prints on standard output, in every attempt the same: as `workload/job.py` does. */
export function expectedOutput({ key, lines, lineBytes }: ExecutionPlan): Buffer {
  return Buffer.from(
    Array.from({ length: lines }, (_, number) => `${`${key} ${number} `.padEnd(lineBytes, '.')}\n`).join(''),
  );
}

/** The result of a handler as text, as `workload/job.py` returns it. Commands have none. */
export function expectedResult({ key, lines }: ExecutionPlan): string {
  return JSON.stringify({ key, lines });
}

/** Whether a flaky execution fails by itself, as `workload/job.py` decides: the last digit of an id is random (RFC 9562). */
export function failsByItself({ isFlaky }: ExecutionPlan, executionId: string): boolean {
  return isFlaky && Number.parseInt(executionId.slice(-1), 16) < 8;
}

/** The output of a run: that of each node that it came to. */
export function expectedRunOutput({ key, nodes }: WorkflowPlan): Record<string, unknown> {
  const outputOf = ({ lines, key: jobKey }: ExecutionPlan) => ({ key: jobKey, lines });
  return Object.fromEntries(
    nodes
      .filter(({ kind, isReached }) => isReached && (kind === 'run' || kind === 'map' || kind === 'signal'))
      .map(({ id, kind, jobs }) => {
        if (kind === 'signal') return [id, approvalOf({ key })];
        const outputs = jobs.map(outputOf);
        return [id, kind === 'map' ? outputs : outputs[0]];
      }),
  );
}

/** What a caller says to the signals of a run. */
export function approvalOf({ key }: Pick<WorkflowPlan, 'key'>): { approved: string } {
  return { approved: key };
}
