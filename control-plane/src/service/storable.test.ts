import { create } from '@bufbuild/protobuf';
import { CreateExecutionRequestSchema } from '@harrier/shared/gen/execution';
import { ModuleSchema } from '@harrier/shared/gen/module';
import { BUILT_IN_CLASSES } from '@harrier/shared/task-classes-file';
import { expect, test } from 'vitest';
import type { Sql } from '../db/sql.ts';
import { ExecutionService, type ExecutionServiceOptions } from './execution-service.ts';
import { ModuleService } from './module-service.ts';
import type { PythonSource } from './python-source/python-source.ts';
import { storable } from './storable.ts';

const concurrency = { key: 'a\0b', maxActive: 1 };

test('a text with NUL can be stored once it has another character there', () => {
  expect(storable('a\0b\0')).toBe('a\u{fffd}b\u{fffd}');
});

test('an execution whose concurrency key the database cannot store is refused, alone', async () => {
  const options = { admission: { admit: () => undefined } } as unknown as ExecutionServiceOptions;
  const request = create(CreateExecutionRequestSchema, {
    target: { case: 'command', value: { argv: ['true'] } },
    concurrency,
  });
  await expect(new ExecutionService(options).accept('tenant', request, '')).rejects.toMatchObject({
    code: 'invalid_argument',
    message: 'concurrency.key cannot contain NUL',
    field: 'concurrency.key',
  });
});

test('so is a module with such a key', async () => {
  const sql = (() => expect.unreachable('nothing is to be looked up')) as unknown as Sql;
  const python = { check: async () => undefined } as unknown as PythonSource;
  const modules = new ModuleService(sql, python, BUILT_IN_CLASSES, () => undefined);
  const module = create(ModuleSchema, { name: 'm', version: '1.0.0', code: 'def handler(input): ...', concurrency });
  expect(await modules.problems('tenant', module)).toMatchObject([
    { code: 'invalid_argument', field: 'module.concurrency.key' },
  ]);
});
