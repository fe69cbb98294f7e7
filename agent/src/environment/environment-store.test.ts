import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { TaskEvents } from '../tasks/shared-tasks.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import type { BuildDirectories } from './build-space.ts';
import {
  type EnvironmentPlace,
  EnvironmentStore,
  type EnvironmentStoreOptions,
  type HeldEnvironment,
} from './environment-store.ts';

const MIB = 1024 * 1024;
const about = (key: string) => ({ key, kind: 'venv', lock: '', facts: {} });
const NOBODY: TaskEvents = { onOutput: () => undefined, onProgress: () => undefined };
const never = new AbortController().signal;

async function open(directory: string, maxBytes = 1024 * MIB): Promise<EnvironmentStore> {
  return await openWith(directory, maxBytes, () => undefined);
}

async function openWith(directory: string, maxBytes: number, retire: EnvironmentStoreOptions['retire']) {
  const options = { directory, maxBytes, minFreeBytes: 0, builder: undefined, logger: silentLogger() };
  return await EnvironmentStore.open({ ...options, retire });
}

const filled =
  (bytes: number) =>
  async ({ tree }: BuildDirectories): Promise<void> =>
    await writeFile(join(tree, 'data'), Buffer.alloc(bytes, 1));

async function build(store: EnvironmentStore, key: string, bytes = 1, tenant = 'acme'): Promise<HeldEnvironment> {
  return await store.build(tenant, about(key), undefined, NOBODY, never, filled(bytes));
}

/** Everything of a tenant but the packages that its builds keep. */
function stored(directory: string, tenant = 'acme'): string[] {
  return readdirSync(join(directory, tenant)).filter((name) => !name.startsWith('.cache'));
}

describe('a build', () => {
  test('is found again, also by the next process', async () => {
    const directory = tempDir();
    const store = await open(directory);
    const built = await build(store, 'k1');
    const again = (await open(directory)).hold('acme', 'k1');
    expect(again?.key).toBe(built.key);
    expect(await readFile(join(again?.tree ?? '', 'data'))).toHaveLength(1);
    expect(store.hold('other', 'k1')).toBeUndefined();
  });

  test('is done once for two that ask, and the later one is told from the start', async () => {
    const store = await open(tempDir());
    const [first, second] = [[] as string[], [] as string[]];
    const into = (list: string[]): TaskEvents => ({ ...NOBODY, onOutput: (data) => list.push(String(data)) });
    const told = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    let builds = 0;
    const work = async (directories: BuildDirectories, events: TaskEvents) => {
      builds++;
      events.onOutput(Buffer.from('one'));
      told.resolve();
      await go.promise;
      events.onOutput(Buffer.from('two'));
      await filled(1)(directories);
    };
    const a = store.build('acme', about('k1'), undefined, into(first), never, work);
    await told.promise;
    const b = store.build('acme', about('k1'), undefined, into(second), never, work);
    go.resolve();
    expect((await a).key).toBe((await b).key);
    expect(builds).toBe(1);
    expect([first, second]).toEqual([
      ['one', 'two'],
      ['one', 'two'],
    ]);
  });

  test('that fails leaves nothing, and can be tried again', async () => {
    const directory = tempDir();
    const store = await open(directory);
    const failing = store.build('acme', about('k1'), undefined, NOBODY, never, async (directories) => {
      await filled(MIB)(directories);
      throw new Error('no such package');
    });
    await expect(failing).rejects.toThrow('no such package');
    expect(stored(directory)).toEqual([]);
    expect((await build(store, 'k1')).tree).toContain('/k1/');
  });

  test('that one caller leaves goes on for the other', async () => {
    const store = await open(tempDir());
    const leave = new AbortController();
    const started = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const work = async (directories: BuildDirectories, _: TaskEvents, signal: AbortSignal) => {
      started.resolve();
      await go.promise;
      signal.throwIfAborted();
      await filled(1)(directories);
    };
    const left = store.build('acme', about('k1'), undefined, NOBODY, leave.signal, work);
    const stays = store.build('acme', about('k1'), undefined, NOBODY, never, work);
    await started.promise;
    leave.abort(new Error('cancelled'));
    await expect(left).rejects.toThrow('cancelled');
    go.resolve();
    expect((await stays).tree).toContain('/k1/');
  });

  test('that everybody left ends before the next one of its key begins', async () => {
    const directory = tempDir();
    const store = await open(directory);
    const leave = new AbortController();
    const go = Promise.withResolvers<void>();
    let stopped = false;
    const stubborn = async (directories: BuildDirectories) => {
      await filled(1)(directories);
      await go.promise;
      stopped = true;
    };
    const left = store.build('acme', about('k1'), undefined, NOBODY, leave.signal, stubborn);
    leave.abort(new Error('cancelled'));
    await expect(left).rejects.toThrow('cancelled');
    const next = store.build('acme', about('k1'), undefined, NOBODY, never, async (directories) => {
      expect(stopped).toBe(true);
      await filled(1)(directories);
    });
    go.resolve();
    await next;
    expect(stored(directory)).toEqual(['k1']);
  });

  test('of which nobody can say what it comes to is done once for a request, and is one with what came to the same', async () => {
    const directory = tempDir();
    const store = await open(directory);
    const go = Promise.withResolvers<void>();
    let builds = 0;
    const unnamed = (request: string) =>
      store.buildUnnamed('acme', request, NOBODY, never, async (directories) => {
        builds++;
        await go.promise;
        await filled(1)(directories);
        return about('k1');
      });
    const all = [unnamed('six'), unnamed('six'), unnamed('six==1.17'), build(store, 'k1')];
    go.resolve();
    const [first, ...others] = await Promise.all(all);
    expect(others.map(({ key }) => key)).toEqual(Array(3).fill(first?.key));
    expect(builds).toBe(2);
    expect(stored(directory)).toEqual(['k1']);
  });

  test('is found by a request once somebody says that it is what the request comes to', async () => {
    const store = await open(tempDir());
    const unnamed = await store.buildUnnamed('acme', 'six', NOBODY, never, async () => about('k1'));
    expect(store.holdByRequest('acme', 'six')).toBeUndefined();
    await store.build('acme', about('k1'), 'six', NOBODY, never, async () => expect.unreachable('it is there'));
    expect(store.holdByRequest('acme', 'six')?.key).toBe(unnamed.key);
  });

  test('for a tenant whose name leads elsewhere is refused', async () => {
    const directory = tempDir();
    const store = await open(join(directory, 'store'));
    await expect(build(store, 'k1', 1, '../other')).rejects.toThrow('cannot be the name of a directory');
    await expect(store.scratch('..', never, async () => undefined)).rejects.toThrow(
      'cannot be the name of a directory',
    );
    expect(readdirSync(directory)).toEqual(['store']);
  });
});

describe('eviction', () => {
  test('takes what was not used for longest, and nothing that is held', async () => {
    const store = await open(tempDir(), 3.5 * MIB);
    for (const key of ['k1', 'k2', 'k3']) (await build(store, key, MIB)).release();
    const oldest = store.hold('acme', 'k1');
    (await build(store, 'k4', MIB)).release();
    const has = (key: string) => {
      const held = store.hold('acme', key);
      held?.release();
      return held !== undefined;
    };
    expect(['k1', 'k2', 'k3', 'k4'].filter(has)).toEqual(['k1', 'k3', 'k4']);
    expect(existsSync(join(oldest?.tree ?? '', 'data'))).toBe(true);
  });

  test('that could make no room is told before a build', async () => {
    const directory = tempDir();
    (await build(await open(directory), 'k1', 2 * MIB)).release();
    const store = await open(directory, 1.5 * MIB);
    const held = store.holdAll();
    expect(store.whyNoRoom()).toBe('no room for environments: those in use take 2 MiB of 1 MiB');
    await expect(build(store, 'k2', MIB)).rejects.toMatchObject({
      code: Code.ENVIRONMENT_FAILED,
      message: 'the environment takes 1 MiB of the 1 MiB of all environments, and those in use take 2 MiB',
    });
    expect(stored(directory)).toEqual(['k1']);
    held.release();
    expect(store.whyNoRoom()).toBeUndefined();
  });

  test('of an environment that is built again gives it another key', async () => {
    const store = await open(tempDir(), 1.5 * MIB);
    const first = await build(store, 'k1', MIB);
    first.release();
    (await build(store, 'k2', MIB)).release();
    expect((await build(store, 'k1', MIB)).key).not.toBe(first.key);
  });

  test('ends the warm interpreters of what goes, of each key', async () => {
    const retired: string[] = [];
    const store = await openWith(tempDir(), 1.5 * MIB, (tenant, startKey) => retired.push(`${tenant} ${startKey}`));
    const first = await build(store, 'k1', MIB);
    for (const key of ['plain', 'with numpy', 'plain']) first.runsAs(key);
    first.release();
    expect(retired).toEqual([]);
    await build(store, 'k2', MIB);
    expect(retired).toEqual(['acme plain', 'acme with numpy']);
  });

  test('spares what attempts of a former agent may run in, until they end', async () => {
    const directory = tempDir();
    for (const key of ['k1', 'k2']) await build(await open(directory), key, MIB);
    const store = await open(directory, 0.5 * MIB);
    const held = store.holdAll();
    await expect(build(store, 'k3', 1)).rejects.toThrow('those in use take 2 MiB');
    expect(stored(directory).toSorted()).toEqual(['k1', 'k2']);
    held.release();
    (await build(store, 'k4', 1)).release();
    // What they held was used last, just now; it still does not fit.
    expect(stored(directory)).toContain('k4');
    expect(stored(directory)).not.toEqual(expect.arrayContaining(['k1']));
    expect(stored(directory)).not.toEqual(expect.arrayContaining(['k2']));
  });

  test('follows no link out of a tree, and counts none', async () => {
    const directory = tempDir();
    const outside = tempDir();
    writeFileSync(join(outside, 'precious'), Buffer.alloc(8 * MIB));
    const store = await open(directory, 1.5 * MIB);
    const linked = await store.build('acme', about('k1'), undefined, NOBODY, never, async ({ tree }) => {
      symlinkSync(outside, join(tree, 'directory'));
      symlinkSync(join(outside, 'precious'), join(tree, 'file'));
    });
    expect(linked.manifest.sizeBytes).toBeLessThan(MIB);
    linked.release();
    (await build(store, 'k2', MIB)).release();
    (await build(store, 'k3', MIB)).release();
    expect(store.hold('acme', 'k1')).toBeUndefined();
    expect(readdirSync(outside)).toEqual(['precious']);
  });

  test('keeps the bound and what is held, whatever is asked for in whatever order', async () => {
    const step = fc.record({
      key: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      tenant: fc.constantFrom('acme', 'beta'),
      what: fc.constantFrom('build', 'hold', 'release'),
      kib: fc.integer({ min: 1, max: 900 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
        const directory = tempDir();
        const store = await open(directory, 2 * MIB);
        const held: HeldEnvironment[] = [];
        const all = steps.map(async ({ key, tenant, what, kib }) => {
          if (what === 'build') {
            // What is in use is never evicted for it: then it may have no room.
            const built = await build(store, key, kib * 1024, tenant).catch((error) => error);
            if (built instanceof Error)
              expect(built.message).toMatch(/^the environment takes .* and those in use take /);
            else held.push(built);
            expect(store.sizeBytes).toBeLessThanOrEqual(2 * MIB);
          }
          const one = what === 'hold' ? store.hold(tenant, key) : undefined;
          if (one !== undefined) held.push(one);
          if (what === 'release') held.shift()?.release();
        });
        await Promise.all(all);
        for (const { tree } of held) expect(existsSync(join(tree, 'data'))).toBe(true);
        for (const one of held) one.release();
        (await build(store, 'last', 1)).release();
        expect(store.sizeBytes).toBeLessThanOrEqual(2 * MIB);
        // What the next process finds is what this one has.
        expect((await open(directory, 2 * MIB)).sizeBytes).toBe(store.sizeBytes);
      }),
      { numRuns: 25 },
    );
  });
});

const MODULE = JSON.stringify(new URL('./environment-store.ts', import.meta.url).href);
const LOGGER = JSON.stringify(new URL('../test-support/silent-logger.ts', import.meta.url).href);

/** Code of a process of its own that has opened a store on the directory in ARGV. */
function program(body: string): string[] {
  const code = `
    import { writeFileSync, readdirSync } from 'node:fs';
    import { EnvironmentStore } from ${MODULE};
    import { silentLogger } from ${LOGGER};
    const [directory, minFreeBytes] = process.argv.slice(1);
    const store = await EnvironmentStore.open({ directory, maxBytes: 1e9, minFreeBytes: Number(minFreeBytes),
      builder: undefined, retire() {}, logger: silentLogger() });
    const about = (key) => ({ key, kind: 'venv', lock: '', facts: {} });
    const events = { onOutput() {}, onProgress() {} };
    const never = new AbortController().signal;
    ${body}`;
  return ['--input-type=module', '-e', code];
}

/** Runs it on a disk of 16 MiB of which 5 stay free, in namespaces that end with the process. Answers what it prints. */
async function onSmallDisk(directory: string, body: string): Promise<string[]> {
  const script = 'mount -t tmpfs -o size=16m none "$0" && exec "$@"';
  const argv = ['--user', '--map-root-user', '--mount', 'sh', '-c', script, directory, process.execPath];
  const { stdout } = await promisify(execFile)('unshare', [...argv, ...program(body), directory, String(5 * MIB)]);
  return JSON.parse(stdout);
}

test('a process that is killed in the middle of a build leaves nothing but what was complete', async () => {
  const directory = tempDir();
  const body = `
    await store.build('acme', about('whole'), undefined, events, never, async ({ tree }) => writeFileSync(tree + '/data', 'x'));
    await store.build('acme', about('torn'), undefined, events, never, async ({ tree }) => {
      writeFileSync(tree + '/data', 'x');
      process.stdout.write('half');
      setInterval(() => undefined, 1000);
      await new Promise(() => undefined);
    });`;
  const child = spawn(process.execPath, [...program(body), directory, '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'close');
  expect(stored(directory)).toHaveLength(2);
  mkdirSync(join(directory, 'acme', '.gone-1'));
  const store = await open(directory);
  expect(store.hold('acme', 'whole')).toBeDefined();
  expect(store.hold('acme', 'torn')).toBeUndefined();
  await store.settled();
  expect(stored(directory)).toEqual(['whole']);
});

test('a build of a former agent that still writes does not keep the next agent from its store', async () => {
  const directory = tempDir();
  const tree = join(directory, 'acme', '.build-1', 'tree');
  mkdirSync(tree, { recursive: true });
  // The same names again and again: what there is to be removed stays little.
  const writing = 'i=0; while :; do : > "f$i"; i=$(((i + 1) % 50)); test -e told || { : > told; echo; }; done';
  const writers = [1, 2, 3].map(() => spawn('sh', ['-c', writing], { cwd: tree, stdio: ['ignore', 'pipe', 'ignore'] }));
  // One whose directory is gone ends by itself.
  const closed = writers.map((writer) => once(writer, 'close'));
  await Promise.race(writers.map(({ stdout }) => once(stdout, 'data')));
  const store = await open(directory);
  expect(stored(directory).filter((name) => !name.startsWith('.gone-'))).toEqual([]);
  await build(store, 'k1');
  for (const writer of writers) writer.kill('SIGKILL');
  await Promise.all(closed);
  await store.settled();
  expect(stored(directory)).toEqual(['k1']);
});

test('what may not have been on the disk when the system went down is built again', async () => {
  const directory = tempDir();
  const store = await open(directory);
  for (const key of ['k1', 'k2']) await build(store, key);
  await store.close();
  const path = join(directory, 'acme', 'k1', 'manifest.json');
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), boot: 'an earlier one' }));
  const next = await open(directory);
  expect(next.hold('acme', 'k1')).toBeUndefined();
  expect(next.hold('acme', 'k2')).toBeDefined();
  await next.settled();
  expect(stored(directory)).toEqual(['k2']);
});

describe('what is started ahead', () => {
  test('in the place of a build is that of the environment, and is retired when nothing comes of it', async () => {
    const retired: string[] = [];
    const store = await openWith(tempDir(), 1024 * MIB, (tenant, startKey) => retired.push(`${tenant} ${startKey}`));
    let ahead = '';
    const starting = async (directories: BuildDirectories, place: EnvironmentPlace) => {
      ahead = place.key;
      expect(place.tree).toBe(directories.tree);
      place.runsAs(place.key);
      await filled(1)(directories);
    };
    const work = async (directories: BuildDirectories, _e: TaskEvents, _s: AbortSignal, place: EnvironmentPlace) =>
      await starting(directories, place);
    const built = await store.build('acme', about('k1'), undefined, NOBODY, never, work);
    expect([built.key, retired]).toEqual([ahead, []]);
    const same = store.buildUnnamed('acme', 'other words', NOBODY, never, async (...given) => {
      await work(...given);
      return about('k1');
    });
    expect((await same).key).toBe(built.key);
    expect(retired.splice(0)).toEqual([`acme ${ahead}`]);
    const failing = store.build('acme', about('k2'), undefined, NOBODY, never, async (...given) => {
      await work(...given);
      throw new Error('no such package');
    });
    await expect(failing).rejects.toThrow('no such package');
    expect(retired).toEqual([`acme ${ahead}`]);
  });

  test('for the next build of a tenant is found by that one alone, and ends with it', async () => {
    const directory = tempDir();
    const store = await open(directory);
    const log: string[] = [];
    const startNext = (directories: BuildDirectories) => {
      log.push(directories.tree);
      return () => log.push('end');
    };
    const build = async (tenant: string, key: string) => {
      let tree = '';
      const held = await store.build(tenant, { ...about(key), startNext }, undefined, NOBODY, never, async (at) => {
        tree = at.tree;
        await filled(1)(at);
      });
      held.release();
      await store.settled();
      return tree;
    };
    await build('acme', 'k1');
    const [ahead] = log.splice(0);
    expect(existsSync(ahead ?? '')).toBe(true);
    expect(await build('acme', 'k2')).toBe(ahead);
    const [end, next] = log.splice(0);
    expect([end, existsSync(next ?? '')]).toEqual(['end', true]);
    // There is one for all tenants.
    expect(await build('other', 'k1')).not.toBe(next);
    expect(existsSync(next ?? '')).toBe(false);
    const [, last] = log.splice(0);
    await store.close();
    expect([log, existsSync(last ?? '')]).toEqual([['end'], false]);
    expect(stored(directory).toSorted()).toEqual(['k1', 'k2']);
  });
});

test('an environment of a former version, whose name was short, has a name of its own', async () => {
  const directory = tempDir();
  await build(await open(directory), 'k1');
  const path = join(directory, 'acme', 'k1', 'manifest.json');
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), build: '0badcafe' }));
  expect((await open(directory)).hold('acme', 'k1')?.key).toBe('k1.0badcafe');
});

test('an environment is in use before it is finished, and is not evicted meanwhile', async () => {
  const directory = tempDir();
  const store = await open(directory, 2.5 * MIB);
  const go = Promise.withResolvers<void>();
  const finished = Promise.withResolvers<void>();
  const finish = async ({ tree }: BuildDirectories) => {
    await go.promise;
    await writeFile(join(tree, 'more'), Buffer.alloc(MIB / 4, 1));
    finished.resolve();
  };
  const first = await store.build('acme', { ...about('k1'), finish }, undefined, NOBODY, never, filled(MIB));
  first.release();
  for (const key of ['k2', 'k3']) (await build(store, key, MIB)).release();
  expect(stored(directory).toSorted()).toEqual(['k1', 'k3']);
  go.resolve();
  await finished.promise;
  await store.close();
  const next = await open(directory);
  expect(readdirSync(next.hold('acme', 'k1')?.tree ?? '').toSorted()).toEqual(['data', 'more']);
});

test('what makes an environment too large while it is finished makes others go', async () => {
  const directory = tempDir();
  const store = await open(directory, 3 * MIB);
  (await build(store, 'k1', MIB)).release();
  const finish = async ({ tree }: BuildDirectories) => await writeFile(join(tree, 'more'), Buffer.alloc(1.5 * MIB, 1));
  const grown = await store.build('acme', { ...about('k2'), finish }, undefined, NOBODY, never, filled(MIB));
  grown.release();
  await store.settled();
  expect(stored(directory)).toEqual(['k2']);
  expect(store.sizeBytes).toBeLessThanOrEqual(3 * MIB);
});

test('an environment that is larger than all may be together is not kept', async () => {
  const directory = tempDir();
  const store = await open(directory, 1.5 * MIB);
  await expect(build(store, 'k1', 2 * MIB)).rejects.toMatchObject({
    code: Code.ENVIRONMENT_FAILED,
    message: 'the environment takes 2 MiB of the 1 MiB of all environments',
  });
  expect(stored(directory)).toEqual([]);
});

test('downloads count with the environments, and go first', async () => {
  const directory = tempDir();
  const fill = async (directories: BuildDirectories) => {
    await filled(MIB)(directories);
    await writeFile(join(directories.cache, 'package'), Buffer.alloc(MIB, 1));
  };
  const roomy = await open(directory, 3 * MIB);
  (await roomy.build('acme', about('k1'), undefined, NOBODY, never, fill)).release();
  await roomy.settled();
  expect(readdirSync(join(directory, 'acme', '.cache'))).toEqual(['package']);
  const store = await open(directory, 1.5 * MIB);
  await store.settled();
  (await build(store, 'k2', MIB / 4)).release();
  expect(readdirSync(join(directory, 'acme', '.cache'))).toEqual([]);
  expect(stored(directory).toSorted()).toEqual(['k1', 'k2']);
});

test('an environment is finished with the downloads of its tenant, also where there was no room for them', async () => {
  const directory = tempDir();
  const store = await open(directory, 1.5 * MIB);
  const fill = async (directories: BuildDirectories) => {
    await filled(MIB)(directories);
    await writeFile(join(directories.cache, 'package'), Buffer.alloc(MIB, 1));
  };
  const finish = async ({ cache, closedCache }: BuildDirectories) => {
    expect([cache, closedCache].map((one) => readdirSync(one))).toEqual([[], []]);
  };
  const built = await store.build('acme', { ...about('k1'), finish }, undefined, NOBODY, never, fill);
  await store.settled();
  expect(built.manifest).not.toHaveProperty('unfinished');
  expect(built.manifest).not.toHaveProperty('boot');
});

test('an environment that cannot be finished is there after the system has gone down, and is finished later', async () => {
  const directory = tempDir();
  const store = await open(directory);
  const finish = async () => {
    throw new Error('no compiler');
  };
  const built = await store.build('acme', { ...about('k1'), finish }, undefined, NOBODY, never, filled(1));
  await store.settled();
  expect(built.manifest).not.toHaveProperty('boot');
  expect(built.manifest.unfinished).toBe(true);
});

test('an agent that ends while it finishes an environment leaves that to the next', async () => {
  const directory = tempDir();
  let begun = 0;
  const started = Promise.withResolvers<void>();
  const endless = async (_: BuildDirectories, signal: AbortSignal) => {
    begun++;
    started.resolve();
    await once(signal, 'abort');
  };
  const built = { ...about('k1'), finish: endless };
  const store = await open(directory);
  const first = await store.build('acme', built, undefined, NOBODY, never, filled(1));
  store.finishLater(first, endless);
  await started.promise;
  await store.close();
  const next = await open(directory);
  const held = next.hold('acme', 'k1');
  const compiled = async ({ tree }: BuildDirectories) => {
    begun++;
    await writeFile(join(tree, 'data.pyc'), 'x');
  };
  if (held === undefined) throw new Error('it is not there');
  next.finishLater(held, compiled);
  next.finishLater(held, compiled);
  await next.settled();
  expect([begun, readdirSync(held.tree).toSorted()]).toEqual([2, ['data', 'data.pyc']]);
  await next.close();
  const last = (await open(directory)).hold('acme', 'k1');
  expect(last?.manifest.unfinished).toBeUndefined();
});

test('a tree that cannot be measured is refused without the paths of the host, and removed', async () => {
  const directory = tempDir();
  const store = await open(directory);
  const deep = async ({ tree }: BuildDirectories) => {
    const program =
      'import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(30): os.mkdir("d" * 250); os.chdir("d" * 250)';
    await promisify(execFile)('python3', ['-c', program, tree]);
  };
  const refused = await store.build('acme', about('k1'), undefined, NOBODY, never, deep).catch((error) => error);
  expect(refused).toMatchObject({ code: Code.ENVIRONMENT_FAILED });
  expect(refused.message).toBe('what the build has written cannot be measured (ENAMETOOLONG)');
  expect(stored(directory)).toEqual([]);
  // What builds keep would stop every later one.
  await store.scratch('acme', never, async (directories) => await deep({ ...directories, tree: directories.cache }));
  await store.settled();
  expect(existsSync(join(directory, 'acme', '.cache'))).toBe(false);
  (await build(store, 'k2')).release();
});

test('what builds keep of downloads makes room before any environment does', async () => {
  const body = `
    await store.build('acme', about('one'), undefined, events, never, async ({ tree, cache }) => {
      writeFileSync(tree + '/data', Buffer.alloc(2 << 20));
      writeFileSync(cache + '/package', Buffer.alloc(8 << 20));
    });
    await store.build('acme', about('two'), undefined, events, never, async ({ tree }) => writeFileSync(tree + '/data', Buffer.alloc(2 << 20)));
    await store.settled();
    console.log(JSON.stringify(readdirSync(directory + '/acme').sort()));`;
  expect(await onSmallDisk(tempDir(), body)).toEqual(['one', 'two']);
});

test('a disk that is full stops a build, refuses the next, and leaves what is there', async () => {
  const directory = tempDir();
  const body = `
    const fill = (mib) => async ({ tree }) => { for (let i = 0; i < mib; i++) writeFileSync(tree + '/' + i, Buffer.alloc(1 << 20)); };
    const tell = (name, work) => work.then(() => name + ': built', (error) => name + ': ' + (error.code ?? '') + ' ' + error.message);
    const lines = [];
    const small = await store.build('acme', about('small'), undefined, events, never, fill(2));
    const left = () => readdirSync(directory + '/acme').filter((name) => !name.startsWith('.cache'));
    // What failed is put aside at once, and removed by and by.
    const removed = async () => { while (left().some((name) => name.startsWith('.gone-'))) await new Promise((resolve) => setTimeout(resolve, 20)); };
    lines.push(await tell('large', store.build('acme', about('large'), undefined, events, never, fill(40))));
    await removed();
    lines.push(await tell('medium', store.build('acme', about('medium'), undefined, events, never, fill(10))));
    lines.push(await tell('next', store.build('acme', about('next'), undefined, events, never, fill(1))));
    lines.push(await tell('resolving', store.scratch('acme', never, async () => undefined)));
    await removed();
    lines.push(left().join());
    console.log(JSON.stringify(lines));`;
  const [large, medium, next, resolving, left] = await onSmallDisk(directory, body);
  expect(large).toMatch(/^large: ENOSPC/);
  expect(medium).toBe('medium: built');
  const full = `${Code.ENVIRONMENT_FAILED} the disk of ${directory} has 3 MiB left, and 5 MiB stay free`;
  expect(next).toBe(`next: ${full}`);
  expect(resolving).toBe(`resolving: ${full}`);
  expect(left).toBe('medium,small');
});
