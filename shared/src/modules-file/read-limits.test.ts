import { create, toJson } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { expect, test } from 'vitest';
import { LimitsSchema, Limits_Network as Network, type SlurmJob, SlurmJobSchema } from '../gen/harrier/v1/module_pb.ts';
import { rootOf } from '../yaml-file/map-reader.ts';
import { YamlSource } from '../yaml-file/yaml-source.ts';
import { readLimits, readSlurm } from './read-limits.ts';

function fieldsOf(text: string) {
  const fields = rootOf(new YamlSource(text), 'no map');
  if (fields === undefined) throw new Error(`${text} is no map`);
  return fields;
}

test('limits that are not named stay as they were', () => {
  const before = create(LimitsSchema, {
    cpu: 4,
    memoryBytes: 1024n,
    processes: 7,
    network: Network.EGRESS,
    egressHosts: ['a.example'],
    gpus: 2,
    gpu: { model: 'H100', minDriverVersion: '550' },
  });
  const was = toJson(LimitsSchema, before);
  expect(readLimits(fieldsOf('{ memory_bytes: 2KiB, gpus: 0, gpu: { model: A100 } }'), before)).toEqual(
    create(LimitsSchema, {
      cpu: 4,
      memoryBytes: 2048n,
      processes: 7,
      network: Network.EGRESS,
      egressHosts: ['a.example'],
      gpus: 0,
      gpu: { model: 'A100', minDriverVersion: '550' },
    }),
  );
  expect(toJson(LimitsSchema, before)).toEqual(was);
});

test('so do fields of a job of Slurm', () => {
  const before: SlurmJob = create(SlurmJobSchema, { partition: 'long', cpusPerTask: 4, time: durationFromMs(60_000) });
  expect(readSlurm(fieldsOf('{ qos: high, cpus_per_task: 8 }'), before)).toEqual(
    create(SlurmJobSchema, { partition: 'long', qos: 'high', cpusPerTask: 8, time: durationFromMs(60_000) }),
  );
  expect(readSlurm(fieldsOf('{ time: 2m }'), before).time).toEqual(durationFromMs(120_000));
  expect(before.time).toEqual(durationFromMs(60_000));
});

test('what is absent is 0 where nothing was before', () => {
  expect(readLimits(fieldsOf('{ cpu: 0.5 }'))).toEqual(create(LimitsSchema, { cpu: 0.5 }));
  expect(readSlurm(fieldsOf('{ partition: p }'))).toEqual(create(SlurmJobSchema, { partition: 'p' }));
});
