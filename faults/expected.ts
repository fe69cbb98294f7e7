import type { ExecutionPlan } from './plan.ts';

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
