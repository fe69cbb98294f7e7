import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { expect, test } from 'vitest';
import { LimitsSchema, SlurmJobSchema } from '../gen/harrier/v1/module_pb.ts';
import { gpusOfGres, slurmExcess } from './slurm-excess.ts';

test.each([
  ['', 0],
  ['gpu', 1],
  ['gpu:8', 8],
  ['GPU:8', 8],
  ['gpu:h100', 1],
  ['gpu:h100:4', 4],
  ['gres:gpu:4', 4],
  ['gpu:a100:2(S:0,1),gpu:h100:3,shard:64', 5],
  ['license:64', 0],
  ['gpu:4k', Number.POSITIVE_INFINITY],
  ['gpu:h100:', Number.POSITIVE_INFINITY],
])('%j is so many GPUs', (gres, gpus) => {
  expect(gpusOfGres(gres)).toBe(gpus);
});

test('a job may ask for the most, and for no more', () => {
  const most = { maxTimeoutMs: 3_600_000, maxLimits: create(LimitsSchema, { cpu: 1.5, gpus: 2 }) };
  const fieldOf = (job: { timeMs?: number; cpusPerTask?: number; gres?: string }) => {
    const { timeMs, ...fields } = job;
    const time = timeMs === undefined ? {} : { time: durationFromMs(timeMs) };
    return slurmExcess(create(SlurmJobSchema, { ...fields, ...time }), most)?.field;
  };
  expect(fieldOf({})).toBeUndefined();
  expect(fieldOf({ timeMs: 3_600_000, cpusPerTask: 2, gres: 'gpu:2' })).toBeUndefined();
  expect(fieldOf({ timeMs: 3_600_001 })).toBe('slurm.time');
  expect(fieldOf({ cpusPerTask: 3 })).toBe('slurm.cpus_per_task');
  expect(fieldOf({ gres: 'gpu:h100:2,gpu:a100' })).toBe('slurm.gres');
  const any = { maxTimeoutMs: undefined, maxLimits: create(LimitsSchema) };
  expect(slurmExcess(create(SlurmJobSchema, { gres: 'gpu:64', cpusPerTask: 4096 }), any)).toBeUndefined();
});
