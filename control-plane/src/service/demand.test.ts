import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ConcurrencyLimitSchema, LimitsSchema, ModuleSchema, SlurmJobSchema } from '@harrier/shared/gen/module';
import { BUILT_IN_CLASSES, parseTaskClasses } from '@harrier/shared/task-classes-file';
import { describe, expect, test } from 'vitest';
import { askedGpus, checkConcurrency, checkHardware, concurrencyOf, demandOf, slurmJobOf } from './demand.ts';
import { checkAllowed, findTaskClass } from './task-class.ts';

const GIB = 1024n ** 3n;
const classOf = (name: string) => findTaskClass(BUILT_IN_CLASSES, name, 'task_class');
const limits = (fields: MessageInitShape<typeof LimitsSchema>) => create(LimitsSchema, fields);
const slurm = (fields: MessageInitShape<typeof SlurmJobSchema>) => create(SlurmJobSchema, fields);
const demand = (name: string, ...written: ReturnType<typeof limits>[]) =>
  demandOf(written, askedGpus(written, classOf(name)), undefined, classOf(name));

describe('what is reserved', () => {
  test('nothing for a call that asks for nothing, nor for limits of its output', () => {
    expect(demand('cpu_short')).toBeUndefined();
    expect(demand('cpu_long', limits({ stdoutBytes: 10n, processes: 4 }))).toBeUndefined();
  });

  test('what the request says, before what the module says', () => {
    const written = [limits({ cpu: 0.5 }), limits({ cpu: 4, memoryBytes: GIB, gpus: 2 })];
    expect(demand('cpu_short', ...written)).toMatchObject({
      slots: 1,
      cpuMilli: 500,
      memoryBytes: Number(GIB),
      gpus: 2,
    });
  });

  test('a card for who says only of which kind it is to be, and for the class of cards', () => {
    expect(demand('cpu_short', limits({ gpu: { model: 'H100' } }))).toMatchObject({ gpus: 1, gpu: { model: 'h100' } });
    expect(demand('gpu')).toMatchObject({ gpus: 1, cpuMilli: 0 });
    expect(demand('gpu', limits({ gpus: 4, gpu: { minDriverVersion: '550.54' } }))).toMatchObject({
      gpus: 4,
      gpu: { minDriverVersion: [550, 54] },
    });
  });

  test('what the class reserves, for who does not say what it needs', () => {
    const text = 'task_classes:\n  - { name: sized, reserve: { cpu: 1.5, memory_bytes: 1GiB } }\n';
    const sized = findTaskClass(parseTaskClasses(text).classes, 'sized', 'task_class');
    const of = (...written: ReturnType<typeof limits>[]) =>
      demandOf(written, askedGpus(written, sized), undefined, sized);
    expect(of()).toMatchObject({ cpuMilli: 1_500, memoryBytes: Number(GIB) });
    expect(of(limits({ cpu: 3 }))).toMatchObject({ cpuMilli: 3_000, memoryBytes: Number(GIB) });
  });

  test('a job of Slurm takes a job and no slot, whatever it asks of the cluster', () => {
    const written = [limits({ cpu: 8, gpus: 2 })];
    const taskClass = classOf('gpu_slurm');
    const job = slurmJobOf(undefined, undefined, taskClass);
    expect(demandOf(written, askedGpus(written, taskClass), job, taskClass)).toMatchObject({
      slots: 0,
      slurmJobs: 1,
      cpuMilli: 0,
      gpus: 0,
    });
  });
});

test('a job of Slurm is put together field by field', () => {
  const job = slurmJobOf(slurm({ qos: 'high' }), slurm({ qos: 'low', partition: 'long' }), classOf('cpu_short'));
  expect(job).toMatchObject({ qos: 'high', partition: 'long', gres: '' });
  expect(slurmJobOf(undefined, undefined, classOf('gpu'))).toBeUndefined();
});

test.each([
  [limits({ gpus: 2, gpu: { migProfile: '1g.10gb' } }), 'cpu_short', 'inline', false, 'module.limits.gpus'],
  [limits({ gpu: { model: 'A100' } }), 'gpu_slurm', 'inline', false, 'module.limits.gpu'],
  [limits({}), 'gpu_slurm', 'docker', false, 'module.slurm'],
  [limits({}), 'gpu_slurm', 'inline', true, 'module.reuse'],
])('case %#: hardware that cannot be is refused', (written, name, environment, reuse, field) => {
  const taskClass = classOf(name);
  const job = slurmJobOf(undefined, undefined, taskClass);
  const check = () => checkHardware(askedGpus([written], taskClass), job, { environment, reuse }, 'module.');
  expect(check).toThrow(expect.objectContaining({ code: 'invalid_argument', field }));
});

const limit = (fields: MessageInitShape<typeof ConcurrencyLimitSchema>) => create(ConcurrencyLimitSchema, fields);

test('a limit goes by its key, or by the module; other work needs a key', () => {
  expect(concurrencyOf(undefined, limit({ maxActive: 2 }), 'm')).toMatchObject({ key: 'module:m', maxActive: 2 });
  expect(concurrencyOf(limit({ key: 'k', maxActive: 1 }), undefined, 'm')).toMatchObject({
    key: 'key:k',
    maxActive: 1,
    ofModule: false,
  });
  expect(concurrencyOf(undefined, undefined, 'm')).toBeUndefined();
  expect(() => concurrencyOf(limit({ maxActive: 1 }), undefined, undefined)).toThrow(/^concurrency\.key is needed/);
});

test('a request goes by the key of its module, whatever it says itself', () => {
  const keyed = limit({ key: 'k', maxActive: 4 });
  expect(concurrencyOf(undefined, keyed, 'm')).toEqual({ key: 'key:k', maxActive: 4, ofModule: true });
  expect(concurrencyOf(limit({ maxActive: 2 }), keyed, 'm')).toMatchObject({ key: 'key:k', maxActive: 2 });
  expect(concurrencyOf(limit({ key: 'other', maxActive: 9 }), keyed, 'm')).toMatchObject({
    key: 'key:k',
    maxActive: 4,
  });
  expect(concurrencyOf(limit({ key: 'k', maxActive: 1 }), limit({ maxActive: 2 }), 'm')).toMatchObject({
    key: 'module:m',
    maxActive: 1,
  });
});

test('a request can make the limit of its module narrower, and nothing else', () => {
  const check = (asked: object, own: object | undefined) => () =>
    checkConcurrency(
      limit({ maxActive: 1, ...asked }),
      create(ModuleSchema, { name: 'm', ...(own === undefined ? {} : { concurrency: { maxActive: 2, ...own } }) }),
    );
  expect(check({ key: 'any', maxActive: 9 }, undefined)).not.toThrow();
  expect(check({ maxActive: 2 }, {})).not.toThrow();
  expect(check({ maxActive: 1 }, { key: 'k' })).not.toThrow();
  expect(check({ key: 'k' }, { key: 'k' })).not.toThrow();
  expect(check({ maxActive: 3 }, {})).toThrow(
    expect.objectContaining({
      code: 'invalid_argument',
      field: 'concurrency.max_active',
      message: expect.stringMatching(/^concurrency\.max_active: 3 is more than the 2 of the module "m"/),
    }),
  );
  expect(check({ key: 'k' }, {})).toThrow(expect.objectContaining({ field: 'concurrency.key' }));
  expect(check({ key: 'other' }, { key: 'k' })).toThrow(/^concurrency\.key: "other" is another one; the key is "k" of/);
  expect(() =>
    checkConcurrency(undefined, create(ModuleSchema, { name: 'm', concurrency: { maxActive: 2 } })),
  ).not.toThrow();
});

test('what a class allows is the most, and a class that is not there names those that are', () => {
  const text = `task_classes:
  - { name: small, max_timeout: 10s, max_limits: { memory_bytes: 1GiB, network: index }, environments: [venv] }
`;
  const small = findTaskClass(parseTaskClasses(text).classes, 'small', 'task_class');
  const ask = (fields: object) => () =>
    checkAllowed(small, { timeoutMs: undefined, limits: undefined, environment: 'venv', ...fields });
  expect(ask({ timeoutMs: 10_000, limits: limits({ memoryBytes: GIB, network: 2 }) })).not.toThrow();
  expect(ask({ timeoutMs: 10_001 })).toThrow(expect.objectContaining({ field: 'timeout' }));
  expect(ask({ limits: limits({ memoryBytes: GIB + 1n }) })).toThrow(/^limits\.memory_bytes: 1073741825 is more than/);
  expect(ask({ limits: limits({ network: 4 }) })).toThrow(expect.objectContaining({ field: 'limits.network' }));
  expect(ask({ environment: 'inline' })).toThrow(/"inline" is not allowed; choose one of venv/);
  expect(() => findTaskClass(BUILT_IN_CLASSES, 'x', 'task_class')).toThrow(
    /choose one of cpu_short, cpu_long, gpu, gpu/,
  );
});
