import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Code, ConnectError } from '@connectrpc/connect';
import { ExecutionError_Code as ErrorCode } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Module_Source as Source } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, finished } from '../support/executions.ts';
import { moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const answering = (text: string) => `def handler(input):\n    return {"from": "${text}"}\n`;
const entry = (name: string, version: string, from: string) =>
  `  - name: ${name}\n    env: inline\n    version: ${JSON.stringify(version)}\n    tags: [file]\n    code: |\n      def handler(input):\n          return {"from": "${from}"}\n`;

const modulesFile = join(directory('modules'), 'modules.yaml');
/** As an editor does: a new file takes the place of the old one. */
function writeModulesFile(...entries: string[]): void {
  writeFileSync(`${modulesFile}.new`, `modules:\n${entries.join('')}`);
  renameSync(`${modulesFile}.new`, modulesFile);
}
writeModulesFile(entry('hello', '1.0.0', 'file 1.0.0'));

const stack = await startStack({ controlPlane: { flags: ['--config', modulesFile] } });
const { modules, executions } = stack;

async function register(name: string, version: string, fields: object = {}): Promise<void> {
  await modules.createModule({ module: { name, version, code: answering(version), ...fields } });
}

async function answer(name: string, version = ''): Promise<string> {
  const { outputJson } = await execute(executions, { ...moduleCall(name), version });
  return JSON.parse(outputJson).from;
}

async function codeOf(call: Promise<unknown>): Promise<Code | undefined> {
  return await call.then(
    () => undefined,
    (error: unknown) => ConnectError.from(error).code,
  );
}

describe('versions', () => {
  test('the latest is the greatest release, in whatever order they came; pre-releases only when there is no release', async () => {
    await register('versions', '1.0.0-rc.2');
    expect(await answer('versions')).toBe('1.0.0-rc.2');
    await register('versions', '1.10.0');
    await register('versions', '1.9.0');
    await register('versions', '2.0.0-alpha');
    expect(await answer('versions')).toBe('1.10.0');
    expect(await answer('versions', '1.9.0')).toBe('1.9.0');
    expect(await answer('versions', '2.0.0-alpha')).toBe('2.0.0-alpha');
    const { modules: all } = await modules.listModuleVersions({ name: 'versions' });
    expect(all.map(({ version }) => version)).toEqual(['2.0.0-alpha', '1.10.0', '1.9.0', '1.0.0-rc.2']);
    expect(all.map(({ code }) => code)).toEqual(['', '', '', '']);
  });

  test('never change but for description and tags: other content is refused and nothing is changed', async () => {
    await register('fixed', '1.0.0', { tags: ['old'] });
    const { module: first } = await modules.getModule({ name: 'fixed' });
    const same = { name: 'fixed', version: '1.0.0', code: answering('1.0.0') };
    const better = { description: 'a better one', tags: ['x'] };
    const { module: again } = await modules.createModule({ module: { ...same, ...better } });
    expect(again).toEqual({ ...first, ...better });
    const listed = async (tag: string) => (await modules.listModules({ tag })).modules.map(({ name }) => name);
    expect([await listed('x'), await listed('old')]).toEqual([['fixed'], []]);
    expect(
      await codeOf(modules.createModule({ module: { name: 'fixed', version: '1.0.0', code: answering('other') } })),
    ).toBe(Code.AlreadyExists);
    expect(
      await codeOf(
        modules.createModule({ module: { name: 'fixed', version: '1.0.0', code: answering('1.0.0'), reuse: true } }),
      ),
    ).toBe(Code.AlreadyExists);
    expect(await answer('fixed')).toBe('1.0.0');
    expect((await modules.getModule({ name: 'fixed' })).module).toMatchObject({
      ...better,
      source: Source.API,
    });
  });

  test('can be registered by many at the same time: one wins, the others learn that they lost', async () => {
    const calls = Array.from({ length: 20 }, (_, i) => codeOf(register('race', '1.0.0', { code: answering(`${i}`) })));
    const codes = await Promise.all(calls);
    expect(codes.filter((code) => code === undefined)).toHaveLength(1);
    expect(new Set(codes)).toEqual(new Set([undefined, Code.AlreadyExists]));
    expect(await answer('race')).toBe(String(codes.indexOf(undefined)));
  });

  test('are deleted one by one or all together; what was accepted before still runs', async () => {
    await register('gone', '1.0.0');
    await register('gone', '2.0.0');
    const waiting = await create(executions, { ...moduleCall('gone'), version: '2.0.0', agentSelector: 'zone=later' });
    expect((await modules.deleteModule({ name: 'gone', version: '2.0.0' })).deletedVersions).toBe(1);
    expect(await answer('gone')).toBe('1.0.0');
    expect(await codeOf(execute(executions, { ...moduleCall('gone'), version: '2.0.0' }))).toBe(Code.NotFound);
    expect((await stack.clients.rest('DELETE', '/modules/gone')).json).toEqual({ deletedVersions: 1 });
    expect(await codeOf(modules.getModule({ name: 'gone' }))).toBe(Code.NotFound);
    await register('gone', '2.0.0', { code: answering('another 2.0.0') });
    expect(await answer('gone')).toBe('another 2.0.0');
    await stack.addAgent({ name: 'later', labels: { zone: 'later' } });
    expect(await finished(executions, waiting)).toMatchObject({ outputJson: '{"from":"2.0.0"}' });
  });
});

test('lists are filtered by tag, environment and prefix, and paged', async () => {
  for (const i of [1, 2, 3, 4, 5]) {
    await register(`list-${i}`, '1.0.0', {
      tags: ['listed', ...(i % 2 === 0 ? ['even'] : [])],
      description: `number ${i}`,
    });
  }
  await register('list-1', '1.1.0', { tags: ['listed'] });
  const names = async (filter: object) =>
    (await modules.listModules(filter)).modules.map(({ name, version }) => `${name} ${version}`);
  expect(await names({ tag: 'even' })).toEqual(['list-2 1.0.0', 'list-4 1.0.0']);
  expect(await names({ namePrefix: 'list-', tag: 'listed' })).toEqual([
    'list-1 1.1.0',
    ...[2, 3, 4, 5].map((i) => `list-${i} 1.0.0`),
  ]);
  expect(await names({ namePrefix: 'list_' })).toEqual([]);
  expect(await names({ namePrefix: 'list-%' })).toEqual([]);
  expect(await names({ environment: 'docker' })).toEqual([]);
  expect((await names({ environment: 'inline', namePrefix: 'list-' })).length).toBe(5);
  const paged: string[] = [];
  let pageToken = '';
  do {
    const page = await modules.listModules({ namePrefix: 'list-', pageSize: 2, pageToken });
    paged.push(...page.modules.map(({ name }) => name));
    ({ nextPageToken: pageToken } = page);
  } while (pageToken !== '');
  expect(paged).toEqual([1, 2, 3, 4, 5].map((i) => `list-${i}`));
});

describe('schemas', () => {
  test('an input is checked before it runs, an output after', async () => {
    const source = 'def handler(input):\n    return {"half": input["n"] / 2 if input["n"] else "none"}\n';
    await register('half', '1.0.0', {
      code: source,
      inputSchema: {
        type: 'object',
        properties: { n: { type: 'integer', minimum: 0 } },
        required: ['n'],
        additionalProperties: false,
      },
      outputSchema: { type: 'object', properties: { half: { type: 'number' } } },
    });
    expect(await execute(executions, moduleCall('half', { n: 3 }))).toMatchObject({ outputJson: '{"half":1.5}' });
    for (const input of [{}, { n: -1 }, { n: 1.5 }, { n: 1, more: 1 }]) {
      expect(await codeOf(execute(executions, moduleCall('half', input)))).toBe(Code.InvalidArgument);
    }
    expect(await execute(executions, moduleCall('half', { n: 0 }))).toMatchObject({
      state: State.FAILED,
      attempt: 1,
      outputJson: '',
      error: { code: ErrorCode.OUTPUT_INVALID, message: expect.stringContaining('half') },
    });
  });

  test('a pattern is matched in linear time, or refused with its place', async () => {
    const word = (pattern: string) => ({ inputSchema: { properties: { word: { type: 'string', pattern } } } });
    await register('word', '1.0.0', word('^(a+)+$'));
    const evil = `${'a'.repeat(10_000)}!`;
    expect(await codeOf(execute(executions, moduleCall('word', { word: evil })))).toBe(Code.InvalidArgument);
    expect(await execute(executions, moduleCall('word', { word: 'aaa' }))).toMatchObject({ state: State.SUCCEEDED });
    const module = { name: 'word', version: '2.0.0', code: answering('2.0.0'), ...word('(a)\\1') };
    const refused = await stack.clients.rest('POST', '/modules', module);
    expect(refused.status).toBe(400);
    expect(refused.text).toContain('module.input_schema.properties.word.pattern');
  });

  test('2020-12 is what they are written in', async () => {
    const inputSchema = {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      properties: { pair: { prefixItems: [{ type: 'string' }, { type: 'number' }], items: false } },
    };
    await register('pair', '1.0.0', { inputSchema });
    expect((await execute(executions, moduleCall('pair', { pair: ['a', 1] }))).state).toBe(State.SUCCEEDED);
    expect(await codeOf(execute(executions, moduleCall('pair', { pair: ['a', 1, 2] })))).toBe(Code.InvalidArgument);
  });
});

describe('the modules file', () => {
  test('is there when the control plane is', async () => {
    expect(await answer('hello')).toBe('file 1.0.0');
    expect((await modules.getModule({ name: 'hello' })).module).toMatchObject({ source: Source.FILE, tags: ['file'] });
  });

  test('is loaded again when it changes, without losing what the API has registered', async () => {
    await register('by-api', '1.0.0');
    writeModulesFile(entry('hello', '1.0.0', 'file 1.0.0'), entry('hello', '1.1.0', 'file 1.1.0'));
    await until(
      'the new version',
      async () => (await modules.getModule({ name: 'hello' })).module?.version === '1.1.0',
    );
    expect([await answer('hello'), await answer('hello', '1.0.0'), await answer('by-api')]).toEqual([
      'file 1.1.0',
      'file 1.0.0',
      '1.0.0',
    ]);
  });

  test('changes description and tags of a version that is there', async () => {
    writeModulesFile(
      entry('hello', '1.1.0', 'file 1.1.0').replace('tags: [file]', 'tags: [seen]\n    description: new'),
    );
    await until('the new tags', async () => (await modules.listModules({ tag: 'seen' })).modules.length === 1);
    expect((await modules.getModule({ name: 'hello' })).module).toMatchObject({
      version: '1.1.0',
      description: 'new',
      tags: ['seen'],
    });
  });

  test('with a mistake changes nothing; the log names file, line and problem', async () => {
    writeModulesFile(entry('hello', '1.1.0', 'file 1.1.0'), entry('broken', 'one', 'x'));
    await until('the problem to be logged', () =>
      /modules\.yaml[^\n]*not a semantic version/.test(stack.controlPlane.program.stderr),
    );
    expect(stack.controlPlane.program.stderr).toMatch(/modules\.yaml:1\d/);
    expect(await codeOf(modules.getModule({ name: 'broken' }))).toBe(Code.NotFound);
    expect(await answer('hello')).toBe('file 1.1.0');
    writeModulesFile(entry('hello', '1.2.0', 'file 1.2.0'));
    await until(
      'the mended file',
      async () => (await modules.getModule({ name: 'hello' })).module?.version === '1.2.0',
    );
  });

  test.each([
    [
      'in its form',
      `${entry('more', '1.0.0', 'x')}  - name: other\n    nonsense: 1\n`,
      [/modules\.yaml:10:5: .*nonsense/, /modules\.yaml:9:5: .*version/],
    ],
    [
      'in its form and in its modules',
      `${entry('a b', '1.0.0', 'x').replace('tags: [file]', 'timeout: soon')}  - nonsense: 1\n${entry('fine', 'one', 'x').replace('tags: [file]', 'agent_selector: "=="')}`,
      [
        /modules\.yaml:2:\d+: .*name/,
        /modules\.yaml:5:14: .*timeout/,
        /modules\.yaml:9:5: .*nonsense/,
        /modules\.yaml:12:14: .*not a semantic version/,
        /modules\.yaml:13:21: .*agent_selector/,
      ],
    ],
    [
      'in a module',
      entry('a b', '1.0.0', 'x') + entry('fine', 'one', 'x'),
      [/modules\.yaml:2:\d+: .*name/, /modules\.yaml:11:\d+: .*not a semantic version/],
    ],
  ])(
    'with mistakes %s at the start stops the control plane, with every problem and its line',
    async (_, text, problems) => {
      const file = join(directory('modules'), 'modules.yaml');
      writeFileSync(file, `modules:\n${text}`);
      const error = await ControlPlane.start({ flags: ['--config', file] }).then(
        () => expect.fail('it should not have started'),
        (thrown: Error) => thrown.message,
      );
      for (const problem of problems) expect(error).toMatch(problem);
    },
  );
});
