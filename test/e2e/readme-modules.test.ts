import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { describe, expect, test } from 'vitest';
import { execute } from '../support/executions.ts';
import { moduleCall } from '../support/requests.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { directory, REPOSITORY } from '../support/workspace.ts';

async function outputOf(stack: Stack, name: string, input: object): Promise<unknown> {
  const execution = await execute(stack.executions, moduleCall(name, input));
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  return JSON.parse(execution.outputJson);
}

describe('the modules file that the README shows', async () => {
  const given = /^```yaml\n(modules:\n[\s\S]*?)^```$/m.exec(readFileSync(join(REPOSITORY, 'README.md'), 'utf8'))?.[1];
  const place = directory('readme');
  cpSync(join(REPOSITORY, 'examples', 'modules'), join(place, 'modules'), { recursive: true });
  const file = join(place, 'modules.yaml');
  writeFileSync(file, given ?? '');
  const stack = await startStack({ controlPlane: { flags: ['--config', file] } });

  test('is loaded as it stands, and what is in it runs', async () => {
    const { modules } = await stack.modules.listModules({});
    expect(modules.map(({ name }) => name).sort()).toEqual(['describe-numbers', 'hello-world']);
    expect(await outputOf(stack, 'hello-world', { name: 'you' })).toEqual({ message: 'Hello, you!' });
    expect(await outputOf(stack, 'describe-numbers', { values: [1, 3] })).toMatchObject({ mean: 2 });
  });
});

describe('the modules file of the examples', async () => {
  const file = join(REPOSITORY, 'examples', 'modules.yaml');
  const stack = await startStack({ controlPlane: { flags: ['--config', file] } });

  test.each([
    ['hello-world', {}, { message: 'Hello, World!' }],
    ['count', { to: 2, pause: 0 }, { counted: 2 }],
    ['gather', { names: ['a', 'b'] }, { done: ['a', 'b'] }],
    ['describe-numbers', { values: [1, 3] }, { mean: 2 }],
    ['data-processor', { values: [3, 1, 2] }, { sorted: [1, 2, 3] }],
    ['word-count', { text: 'a b a' }, { counts: { a: 2, b: 1 } }],
    ['flaky', {}, { attempts: 2 }],
  ])('%s runs as it stands', async (name, input, output) => {
    expect(await outputOf(stack, name, input)).toMatchObject(output);
  });
});
