import { randomUUID } from 'node:crypto';
import { create, type JsonObject, toBinary, toJsonString } from '@bufbuild/protobuf';
import {
  ListModulesRequestSchema,
  ListModulesResponseSchema,
  ModuleSchema,
  Module_Source as Source,
} from '@harrier/shared/gen/module';
import { parseTaskClasses } from '@harrier/shared/task-classes-file';
import { expect, test } from 'vitest';
import { insertModule } from '../db/queries/modules.ts';
import { uuidv7 } from '../db/uuid.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { ModuleService } from './module-service.ts';
import { PythonSource } from './python-source/python-source.ts';

const { cold: sql } = await startDatabase();
const tenantId = randomUUID();
await sql`INSERT INTO tenants (id, name) VALUES (${tenantId}, 'tenant')`;
const { classes } = parseTaskClasses('task_classes: []');
const service = new ModuleService(sql, new PythonSource(), classes, () => undefined);

const nested = (levels: number): JsonObject => JSON.parse(`${'{"not":'.repeat(levels)}{}${'}'.repeat(levels)}`);
const moduleWith = (name: string, inputSchema: JsonObject) =>
  create(ModuleSchema, { name, version: '1.0.0', code: 'def handler(input): return input', inputSchema });
const listed = () => service.list(tenantId, create(ListModulesRequestSchema));

test('a schema that not every caller could read is refused before anything is stored', async () => {
  for (const [schema, problem] of [
    [nested(32), 'nested deeper than 32 levels'],
    [{ properties: { a: { maximum: Number.POSITIVE_INFINITY } } }, '.properties.a.maximum: the number is beyond'],
  ] as const) {
    await expect(service.create(tenantId, moduleWith('refused', schema), Source.API)).rejects.toMatchObject({
      code: 'invalid_argument',
      field: 'module.input_schema',
      message: expect.stringContaining(problem),
    });
  }
  expect((await listed()).modules).toEqual([]);
});

test('one that is stored nevertheless takes neither the list nor the calls of the module away', async () => {
  const deep = moduleWith('deep', nested(60));
  const endless = moduleWith('endless', { maximum: Number.POSITIVE_INFINITY });
  for (const module of [deep, endless, moduleWith('fine', nested(31))]) {
    const stored = { id: uuidv7(), tenantId, name: module.name, version: module.version, environment: 'inline' };
    const row = {
      ...stored,
      tags: [],
      digest: module.name,
      source: Source.API,
      definition: toBinary(ModuleSchema, module),
    };
    await insertModule(sql, row, (versions) => versions[0]);
  }
  const { modules } = await listed();
  expect(modules.map(({ name, inputSchema }) => [name, inputSchema])).toEqual([
    ['deep', { $comment: expect.stringMatching(/^not shown: .* nested deeper than 32 levels$/) }],
    ['endless', { $comment: expect.stringMatching(/^not shown: \$\.maximum: the number is beyond/) }],
    ['fine', nested(31)],
  ]);
  expect(toJsonString(ListModulesResponseSchema, create(ListModulesResponseSchema, { modules }))).toContain('endless');
  expect((await service.get(tenantId, 'deep', '')).inputSchema).toHaveProperty('$comment');
  expect((await service.resolve(tenantId, 'deep', '')).module.inputSchema).toEqual(nested(60));
});
