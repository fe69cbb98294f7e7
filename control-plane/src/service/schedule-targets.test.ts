import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { HarrierError } from '@harrier/shared';
import { ExecuteRequestSchema } from '@harrier/shared/gen/execution';
import { WorkflowRun_State as RunState, RunWorkflowRequestSchema } from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { insertWorkflowRun } from '../db/queries/workflow-runs.ts';
import { uuidv7 } from '../db/uuid.ts';
import type { Firing } from '../schedule/schedule-runner.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { scheduleTargets } from './schedule-targets.ts';

const { cold: sql } = await startDatabase();
const refuse = () => Promise.reject(new HarrierError('not_found', 'it was deleted'));
const refused = { accept: refuse, run: refuse, cancel: refuse };

test.each<[string, Firing['target']]>([
  ['its workflow is gone', { case: 'workflow', value: create(RunWorkflowRequestSchema, { name: 'w' }) }],
  ['the schedule starts something else', { case: 'run', value: create(ExecuteRequestSchema) }],
])('what was accepted for a time stands for it, although %s', async (_, target) => {
  const [tenantId, id, time] = [randomUUID(), uuidv7(), new Date()];
  const key = `schedule/${randomUUID()}/${time.toISOString()}`;
  await insertWorkflowRun(sql, {
    ...{ id, tenantId, workflowId: randomUUID(), workflow: 'w', version: '1.0.0', pinned: {} },
    ...{ state: RunState.PENDING, inputJson: '{}', labels: undefined, idempotencyKey: key, replicaId: randomUUID() },
  });
  const { start } = scheduleTargets(sql, refused, refused);
  await expect(start({ tenantId, name: 's', time, key, target })).resolves.toEqual({
    executionId: undefined,
    runId: id,
  });
  await expect(start({ tenantId, name: 's', time, key: `${key}1`, target })).rejects.toThrow('it was deleted');
});
