import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { createRegistry, Exposition } from '@harrier/shared/metrics/exposition';
import { expect, test } from 'vitest';
import { ExecutionMetrics, type ExtraLabel } from './execution-metrics.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const ENDED = {
  ...{ taskClass: 'gpu', tenant: 'tenant-1', module: 'train', state: State.FAILED, errorCode: Code.OUT_OF_MEMORY },
  ...{ seconds: 7, traceParent: `00-${TRACE}-b7ad6b7169203331-01` },
};

async function pageWith(extra: readonly ExtraLabel[], traceParent = ENDED.traceParent): Promise<string> {
  const registry = createRegistry();
  const metrics = new ExecutionMetrics(registry, extra);
  metrics.observeEnd({ ...ENDED, traceParent });
  metrics.observeRetry('gpu', Code.AGENT_LOST);
  return (await new Exposition(registry).render('application/openmetrics-text')).body;
}

test('an end is counted by state and error, and its duration leads to its trace', async () => {
  const page = await pageWith([]);
  expect(page).toContain('harrier_executions_total{task_class="gpu",state="failed"} 1\n');
  expect(page).toContain('harrier_execution_errors_total{task_class="gpu",code="out_of_memory"} 1\n');
  expect(page).toContain('harrier_execution_retries_total{task_class="gpu",code="agent_lost"} 1\n');
  expect(page).toContain(
    `harrier_execution_duration_seconds_bucket{le="10",task_class="gpu"} 1 # {trace_id="${TRACE}"} 7 `,
  );
});

test('nothing leads to a trace that nobody keeps', async () => {
  expect(await pageWith([], ENDED.traceParent.replace(/01$/, '00'))).not.toContain('trace_id');
});

test('tenant and module are labels only where they are wanted', async () => {
  expect(await pageWith([])).not.toMatch(/tenant|train/);
  const page = await pageWith(['tenant', 'module']);
  expect(page).toContain(
    'harrier_executions_total{task_class="gpu",tenant="tenant-1",module="train",state="failed"} 1\n',
  );
});
