import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { CreateExecutionRequestSchema } from '@harrier/shared/gen/execution';
import { Limits_Network as Network } from '@harrier/shared/gen/module';
import { parseTaskClasses } from '@harrier/shared/task-classes-file';
import { describe, expect, test } from 'vitest';
import { assignmentMessage, checkExecution, type ResolvedExecution, resolveExecution } from './resolved-execution.ts';
import { findTaskClass } from './task-class.ts';

const MIB = 1024n ** 2n;
const { classes, problems } = parseTaskClasses(`task_classes:
  - name: tight
    timeout: 30s
    max_timeout: 60s
    limits: { network: egress, egress_hosts: [a.example] }
    max_limits: { cpu: 2, memory_bytes: 256MiB, stdout_bytes: 1MiB, gpus: 1, processes: 64, network: index }
  - { name: gpu_slurm, max_timeout: 2h, max_limits: { cpu: 8, gpus: 2 } }
`);

type Asked = MessageInitShape<typeof CreateExecutionRequestSchema>;

function resolved(asked: Asked): ResolvedExecution {
  const request = create(CreateExecutionRequestSchema, {
    target: { case: 'code', value: { source: 'def handler(input): ...' } },
    taskClass: 'tight',
    ...asked,
  });
  const ids = { id: 'execution', tenantId: 'tenant' };
  return resolveExecution({ ...ids, request, module: undefined, classes, inputJson: '{}', jsonText: false });
}

function accepted(asked: Asked): ResolvedExecution {
  const execution = resolved(asked);
  checkExecution(execution, findTaskClass(classes, execution.taskClass, 'task_class'));
  return execution;
}

/** Limits as an agent gets them. */
function assigned(asked: Asked, cpuMilli?: number) {
  const { message } = assignmentMessage(accepted(asked), 1, [], cpuMilli);
  return message.case === 'assignment' ? message.value.limits : undefined;
}

test('the classes are as they should be', () => {
  expect(problems).toEqual([]);
});

describe('what nobody says is no more than the class allows', () => {
  test('of limits', () => {
    expect(accepted({}).limits).toMatchObject({
      cpu: 2,
      memoryBytes: 256n * MIB,
      stdoutBytes: MIB,
      stderrBytes: 16n * MIB,
      processes: 64,
      network: Network.INDEX,
      egressHosts: [],
    });
    expect(accepted({ limits: { cpu: 0.5, memoryBytes: 64n * MIB } }).limits).toMatchObject({
      cpu: 0.5,
      memoryBytes: 64n * MIB,
      processes: 64,
    });
    expect(accepted({ taskClass: 'cpu_short' }).limits).toMatchObject({ cpu: 0, memoryBytes: 512n * MIB });
  });

  test('of processors, on an agent that has fewer: all of them, for it refuses who wants more', () => {
    expect(assigned({}, 16_000)?.cpu).toBe(2);
    expect(assigned({}, 1_500)?.cpu).toBe(1.5);
    expect(assigned({}, Number.POSITIVE_INFINITY)?.cpu).toBe(2);
    expect(assigned({ limits: { cpu: 2 } }, 1_500)?.cpu).toBe(2);
    expect(assigned({ taskClass: 'cpu_short' }, 1_500)?.cpu).toBe(0);
  });

  test('of the time of a job of Slurm; its processors are the cluster’s default', () => {
    const job = accepted({ taskClass: 'gpu_slurm' });
    expect(job.slurm?.time).toEqual(durationFromMs(7_200_000));
    expect(job.timeoutMs).toBeUndefined();
    expect(job.limits.cpu).toBe(0);
    const timed = accepted({ taskClass: 'gpu_slurm', timeout: durationFromMs(1_000) });
    expect({ timeoutMs: timed.timeoutMs, time: timed.slurm?.time }).toEqual({ timeoutMs: 1_000, time: undefined });
    const shorter = accepted({ taskClass: 'gpu_slurm', slurm: { time: durationFromMs(60_000) } });
    expect(shorter.slurm?.time).toEqual(durationFromMs(60_000));
    expect(accepted({ slurm: {} }).slurm?.time).toEqual(durationFromMs(60_000));
  });

  test('nothing that was accepted when its class allowed it is changed', () => {
    expect(resolved({ limits: { memoryBytes: 512n * MIB, cpu: 8 } }).limits).toMatchObject({
      memoryBytes: 512n * MIB,
      cpu: 8,
    });
  });
});

test.each([
  [{ timeout: durationFromMs(61_000) }, 'timeout'],
  [{ limits: { memoryBytes: 257n * MIB } }, 'limits.memory_bytes'],
  [{ slurm: { time: durationFromMs(61_000) } }, 'slurm.time'],
  [{ slurm: { cpusPerTask: 3 } }, 'slurm.cpus_per_task'],
  [{ slurm: { gres: 'gpu:h100:2' } }, 'slurm.gres'],
  [{ taskClass: 'gpu_slurm', slurm: { gres: 'gpu:2,gpu:a100:1' } }, 'slurm.gres'],
])('case %#: more than the class allows is refused', (asked, field) => {
  const named = expect.stringMatching(/see the task class "(tight|gpu_slurm)"$/);
  expect(() => accepted(asked)).toThrow(expect.objectContaining({ code: 'invalid_argument', field, message: named }));
});

test('as much as the class allows is not', () => {
  const slurm = { time: durationFromMs(7_200_000), cpusPerTask: 8, gres: 'gpu:a100:2' };
  expect(accepted({ taskClass: 'gpu_slurm', slurm }).slurm).toMatchObject({ cpusPerTask: 8, gres: 'gpu:a100:2' });
});
