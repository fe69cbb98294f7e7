import { once } from 'node:events';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { HarrierError, type Logger } from '@harrier/shared';
import { type Module, Module_Source as ModuleSource } from '@harrier/shared/gen/module';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { followModulesFile } from './modules-file.ts';

/** A registry in memory with the one rule that matters here: a version never changes. */
class Registry {
  readonly modules = new Map<string, { module: Module; source: ModuleSource }>();

  async problems(_tenantId: string, module: Module): Promise<HarrierError[]> {
    const known = this.modules.get(`${module.name} ${module.version}`);
    if (known === undefined || known.module.code === module.code) return [];
    const message = `module ${module.name} ${module.version} exists with other content`;
    return [new HarrierError('already_exists', message, { field: 'module.version' })];
  }

  async create(_tenantId: string, module: Module, source: ModuleSource): Promise<Module> {
    this.modules.set(`${module.name} ${module.version}`, { module, source });
    return module;
  }

  get names(): string[] {
    return [...this.modules.keys()].toSorted();
  }
}

let directory: string;
let path: string;
let registry: Registry;
let log: PassThrough;
let logger: Logger;
let stop: (() => Promise<void>) | undefined;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'modules-file-'));
  path = join(directory, 'modules.yaml');
  registry = new Registry();
  log = new PassThrough({ encoding: 'utf8' });
  logger = pino({ base: null }, log);
});

afterEach(async () => {
  await stop?.();
  stop = undefined;
  await rm(directory, { recursive: true, force: true });
});

async function follow(): Promise<void> {
  ({ stop } = await followModulesFile({ path, tenantId: 'tenant', modules: registry, logger }));
}

/** The next messages of the log, up to one that contains the text. */
async function logged(text: string): Promise<string[]> {
  const messages: string[] = [];
  for (;;) {
    const chunk = log.read() as string | null;
    if (chunk === null) {
      await once(log, 'readable');
      continue;
    }
    messages.push(
      ...chunk
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { msg: string }).msg),
    );
    if (messages.some((message) => message.includes(text))) return messages;
  }
}

function entry(name: string, rest = 'code: "x = 1"', version = '1.0.0'): string {
  return `  - { name: ${name}, version: "${version}", ${rest} }\n`;
}

const REGISTERED = 'modules file is registered';
const REFUSED = 'what was before stays';

describe('followModulesFile', () => {
  it('registers the modules with the code of their files', async () => {
    await writeFile(join(directory, 'b.py'), 'def handler(input): ...\n');
    await writeFile(path, `modules:\n${entry('a')}${entry('b', 'path: ./b.py')}`);
    await follow();
    expect(registry.names).toEqual(['a 1.0.0', 'b 1.0.0']);
    expect(registry.modules.get('b 1.0.0')).toMatchObject({
      module: { code: 'def handler(input): ...\n' },
      source: ModuleSource.FILE,
    });
  });

  it('does not start with a file that is wrong, tells every problem, and registers nothing', async () => {
    await registry.create('tenant', { name: 'a', version: '1.0.0', code: 'other' } as Module, ModuleSource.API);
    await writeFile(
      path,
      `modules:\n${entry('good')}${entry('bad name!')}${entry('c', 'code: x, retry: {max_attempts: 1000}')}${entry('a')}`,
    );
    const error = await follow().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(HarrierError);
    const lines = (error as HarrierError).message.split('\n  ');
    expect(lines).toEqual([
      'the modules file is not right:',
      expect.stringMatching(/modules\.yaml:3:13: modules\[1\]\.name: /),
      expect.stringMatching(/modules\.yaml:4:65: modules\[2\]\.retry\.max_attempts: /),
      expect.stringMatching(/modules\.yaml:5:25: modules\[3\]\.version: module a 1\.0\.0 exists with other content/),
    ]);
    expect(registry.names).toEqual(['a 1.0.0']);
  });

  it('tells mistakes of form and of content together, each place once', async () => {
    await registry.create('tenant', { name: 'a', version: '1.0.0', code: 'other' } as Module, ModuleSource.API);
    await writeFile(join(directory, 'empty.py'), '');
    await writeFile(
      path,
      `modules:\n${entry('a', 'code: x, timeout: soon')}${entry('bad name!', 'path: gone.py')}${entry('c', 'path: empty.py')}  - { code: x }\n`,
    );
    const error = await follow().catch((thrown: unknown) => thrown);
    expect((error as HarrierError).message.split('\n  ')).toEqual([
      'the modules file is not right:',
      expect.stringMatching(/modules\.yaml:2:52: modules\[0\]\.timeout: must be seconds/),
      expect.stringMatching(/modules\.yaml:3:13: modules\[1\]\.name: /),
      expect.stringMatching(/modules\.yaml:3:48: modules\[1\]\.path: .*gone\.py cannot be read/),
      expect.stringMatching(/modules\.yaml:4:40: modules\[2\]\.path: /),
      expect.stringMatching(/modules\.yaml:5:5: modules\[3\]\.name: is missing/),
      expect.stringMatching(/modules\.yaml:5:5: modules\[3\]\.version: is missing/),
    ]);
  });

  it('does not start without its file, or without a code file', async () => {
    await expect(follow()).rejects.toThrow(/modules\.yaml: cannot be read: ENOENT/);
    await writeFile(path, `modules:\n${entry('a', 'path: gone.py')}`);
    await expect(follow()).rejects.toThrow(/modules\.yaml:2:40: modules\[0\]\.path: .*gone\.py cannot be read: ENOENT/);
  });

  it('registers what a change brings and keeps what it takes away', async () => {
    await writeFile(path, `modules:\n${entry('a')}`);
    await follow();
    await logged(REGISTERED);
    await writeFile(path, `modules:\n${entry('b')}`);
    await logged(REGISTERED);
    expect(registry.names).toEqual(['a 1.0.0', 'b 1.0.0']);
  });

  it('sees a file that an editor replaces, again and again', async () => {
    await writeFile(path, `modules:\n${entry('a')}`);
    await follow();
    await logged(REGISTERED);
    for (const name of ['b', 'c']) {
      await writeFile(`${path}.new`, `modules:\n${entry(name)}`);
      await rename(`${path}.new`, path);
      await logged(REGISTERED);
    }
    expect(registry.names).toEqual(['a 1.0.0', 'b 1.0.0', 'c 1.0.0']);
  });

  it('keeps everything when a change is wrong, says why, and takes the next one that is right', async () => {
    await writeFile(path, `modules:\n${entry('a')}`);
    await follow();
    await logged(REGISTERED);
    await writeFile(`${path}.new`, `modules:\n${entry('b')}${entry('a', 'code: "x = 2"')}`);
    await rename(`${path}.new`, path);
    expect(await logged(REFUSED)).toEqual([
      expect.stringMatching(/modules\.yaml:3:25: modules\[1\]\.version: module a 1\.0\.0 exists with other content/),
      expect.stringContaining(REFUSED),
    ]);
    expect(registry.names).toEqual(['a 1.0.0']);
    await writeFile(path, `modules:\n${entry('b')}${entry('a', 'code: "x = 2"', '1.0.1')}`);
    await logged(REGISTERED);
    expect(registry.names).toEqual(['a 1.0.0', 'a 1.0.1', 'b 1.0.0']);
  });

  it('follows a code file, also one that was missing', async () => {
    await writeFile(path, `modules:\n${entry('a')}`);
    await follow();
    await logged(REGISTERED);
    await writeFile(path, `modules:\n${entry('late', 'path: late.py')}`);
    await logged(REFUSED);
    await writeFile(join(directory, 'late.py'), 'x = 1\n');
    await logged(REGISTERED);
    expect(registry.names).toEqual(['a 1.0.0', 'late 1.0.0']);
    await writeFile(join(directory, 'late.py'), 'x = 2\n');
    expect(await logged(REFUSED)).toContainEqual(expect.stringContaining('late 1.0.0 exists with other content'));
  });
});
