import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, describe, expect, test } from 'vitest';
import type { StartEnvironment } from '../../launcher/messages.ts';
import {
  EnvironmentBuilds,
  recordedEvents as events,
  isRoot,
  TOOLS_PATH,
} from '../../test-support/environment-builds.ts';
import type { EnvironmentProvider, EnvironmentRequest } from '../environment.ts';
import type { IndexPolicy } from '../index-policy.ts';
import { Interpreters } from '../interpreters.ts';
import type { Warm } from '../package-provider.ts';
import { findTool } from '../tools.ts';
import { pipInstaller, uvInstaller } from './installer.ts';
import { createVenvProvider } from './venv-provider.ts';

// The real launcher, sandbox, uv, pip and package index.
const builds = await EnvironmentBuilds.start();
afterAll(() => builds.stop());
const never = new AbortController().signal;

const PUBLIC = { indexUrl: 'https://pypi.org/simple', allowed: [], allowExtra: false, fileHosts: [] };

async function provider(
  kind: 'uv' | 'pip',
  indexes: IndexPolicy = PUBLIC,
  warm: Warm = builds.warm,
): Promise<EnvironmentProvider> {
  const uv = await findTool('uv', TOOLS_PATH);
  return createVenvProvider({
    store: builds.store,
    runs: builds.builds,
    interpreters: new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot),
    installer: kind === 'uv' ? uvInstaller(uv ?? 'uv is missing: run npm test, or pip install uv') : pipInstaller(),
    indexes,
    unavailable: () => undefined,
    warm,
  });
}

const request = (venv: MessageInitShape<typeof Environment_VenvSchema>, tenant = 'acme'): EnvironmentRequest => ({
  tenant,
  environment: create(EnvironmentSchema, { kind: { case: 'venv', value: create(Environment_VenvSchema, venv) } }),
  language: 'python',
  preload: [],
});

describe.each(['uv', 'pip'] as const)('with %s', (kind) => {
  test('requirements are resolved, installed with their hashes, and found again', async () => {
    const venv = await provider(kind);
    const wanted = request({ requirements: ['six==1.17.0'] }, kind);
    expect(venv.prepared(wanted)).toBeUndefined();
    const told = events();
    const prepared = await venv.prepare(wanted, told, never);
    expect(told.locks[0]).toMatch(/^six==1\.17\.0[\s\\]+--hash=sha256:[0-9a-f]{64}/);
    const code = 'import six, sys\ndef handler(i): return {"v": six.__version__, "p": sys.prefix}\n';
    expect(await builds.outcome(prepared, code)).toBe('succeeded {"v":"1.17.0","p":"/environment"}');
    const write = 'import six\ndef handler(i):\n    open(six.__file__, "a")\n';
    expect(await builds.outcome(prepared, write)).toBe('failed HANDLER_ERROR');
    const again = venv.prepared(wanted);
    expect(again?.start?.key).toBe(prepared.start?.key);
    expect(again?.lock).toBe(told.locks[0]);
    again?.release();
    prepared.release();
    expect(await venv.resolve(request({ lock: told.locks[0] ?? '' }, kind), never)).toMatchObject({ held: true });
  });

  test.each([
    ['a package that there is not', { requirements: ['harrier-no-such-package-x'] }, /harrier-no-such-package-x/],
    ['a conflict', { requirements: ['six==1.16.0', 'six==1.17.0'] }, /six/],
    ['a hash that is wrong', { lock: `six==1.17.0 --hash=sha256:${'0'.repeat(64)}` }, /[Hh]ash/],
  ])('%s fails in the words of the resolver', async (_, venv, message) => {
    const failing = (await provider(kind)).prepare(request(venv, kind), events(), never);
    await expect(failing).rejects.toMatchObject({
      code: Code.ENVIRONMENT_FAILED,
      message: expect.stringMatching(message),
    });
  });
});

test('an interpreter is started while packages are installed, and serves the first call', async () => {
  const started: [string, StartEnvironment][] = [];
  const venv = await provider('uv', PUBLIC, (tenant, environment) => {
    started.push([tenant, environment]);
    // It is in this directory only as long as that is being built: one that is started later would find nothing.
    expect(environment.binds?.[0]?.source).toContain('/.build-');
    builds.warm(tenant, environment);
  });
  const wanted = { ...request({ requirements: ['six==1.17.0'] }), preload: ['six'] };
  const prepared = await venv.prepare(wanted, events(), never);
  expect(started.map(([tenant, { key, preload }]) => [tenant, key, preload])).toEqual([
    ['acme', prepared.start?.key, ['six']],
  ]);
  const gone = { ...prepared, start: { ...prepared.start, key: prepared.start?.key ?? '', binds: [] } };
  const code = 'import sys\nthere = "six" in sys.modules\ndef handler(i): return {"there": there, "p": sys.prefix}\n';
  expect(await builds.outcome(gone, code)).toBe('succeeded {"there":true,"p":"/environment"}');
  prepared.release();
  const part = await venv.prepare({ ...wanted, tenant: 'parts', partOnly: true }, events(), never);
  expect(started).toHaveLength(1);
  part.release();
});

test('what is not there yet is told with the bytes that it takes to download', async () => {
  const venv = await provider('uv');
  const { sizeBytes, held } = await venv.resolve(
    request({ requirements: ['six==1.17.0', 'idna==3.10'] }, 'sizes'),
    never,
  );
  // The wheels on the index: 11,050 and 70,442 bytes.
  expect({ sizeBytes, held }).toEqual({ sizeBytes: 81_492, held: false });
});

test('an environment without packages is a Python of its own', async () => {
  const prepared = await (await provider('uv')).prepare(request({}), events(), never);
  expect(await builds.outcome(prepared, 'import sys\ndef handler(i): return {"p": sys.prefix}\n')).toBe(
    'succeeded {"p":"/environment"}',
  );
  prepared.release();
});

test('the lock that was decided for its platform is installed as it is, that of another platform is not', async () => {
  const venv = await provider('uv');
  const wanted = request({ requirements: ['six'] }, 'platforms');
  const { platform } = await venv.resolve(wanted, never);
  expect(platform).toMatch(/^cpython-3\d+/);
  const told = events();
  const decided = { ...wanted, decidedLocks: { [platform]: 'six==1.16.0', other: 'six==1.15.0' } };
  const prepared = await venv.prepare(decided, told, never);
  const code = 'import six\ndef handler(i): return {"v": six.__version__}\n';
  expect([told.locks, await builds.outcome(prepared, code)]).toEqual([[], 'succeeded {"v":"1.16.0"}']);
  expect(venv.prepared(decided)?.lock).toBeUndefined();
  expect(venv.prepared(wanted)).toBeUndefined();
  await venv.prepare({ ...wanted, decidedLocks: { other: 'six==1.15.0' } }, told, never);
  expect(told.locks).toEqual([expect.stringContaining('six==1.17.0')]);
});

test('byte code is added while the environment is in use', async () => {
  const prepared = await (await provider('uv')).prepare(request({ requirements: ['six==1.17.0'] }), events(), never);
  const code = 'import os, six\ndef handler(i): return {"compiled": os.path.exists(six.__cached__)}\n';
  await expect.poll(async () => await builds.outcome(prepared, code)).toBe('succeeded {"compiled":true}');
  prepared.release();
});

test('two that want the same share one build, and both see its output', async () => {
  const venv = await provider('uv');
  const wanted = request({ requirements: ['idna==3.10'] });
  const [one, two] = [events(), events()];
  const [a, b] = await Promise.all([venv.prepare(wanted, one, never), venv.prepare(wanted, two, never)]);
  expect(a.start?.key).toBe(b.start?.key);
  expect(one.text).toContain('idna');
  expect(two.text).toBe(one.text);
});

test('when another lock is decided, that is installed, and found again by the request', async () => {
  const venv = await provider('uv');
  const wanted = request({ requirements: ['toolz'] }, 'decided');
  const told = { ...events(), decideLock: async () => 'toolz==0.12.0' };
  const prepared = await venv.prepare(wanted, told, never);
  const code = 'import toolz\ndef handler(i): return {"v": toolz.__version__}\n';
  expect(await builds.outcome(prepared, code)).toBe('succeeded {"v":"0.12.0"}');
  expect(venv.prepared(wanted)?.start?.key).toBe(prepared.start?.key);
  expect(venv.prepared(wanted)?.lock).toBe('toolz==0.12.0\n');
});

test.each([
  ['a Python that is not there', { python: '3.99' }, Code.ENVIRONMENT_FAILED, /no Python "3\.99".*it has 3\./],
  [
    'an index that is not allowed',
    { indexUrl: 'https://elsewhere.example/simple' },
    Code.POLICY_DENIED,
    /HARRIER_AGENT_ALLOWED_INDEXES/,
  ],
  [
    'a second index',
    { extraIndexUrls: ['https://pypi.org/simple'] },
    Code.POLICY_DENIED,
    /HARRIER_AGENT_ALLOW_EXTRA_INDEX/,
  ],
  [
    'a URL',
    { requirements: ['six @ https://elsewhere.example/six.whl'] },
    Code.POLICY_DENIED,
    /does not come from the package index/,
  ],
  ['a named path', { requirements: ['six @ ./local'] }, Code.POLICY_DENIED, /does not come from the package index/],
  ['a second line', { requirements: ['six\n./local'] }, Code.POLICY_DENIED, /more than one requirement/],
  ['a path', { requirements: ['./local'] }, Code.POLICY_DENIED, /does not come from the package index/],
  ['an option behind a requirement', { requirements: ['six --global-option=x'] }, Code.POLICY_DENIED, /option of pip/],
  ['a lock that pins nothing', { lock: 'six>=1' }, Code.ENVIRONMENT_FAILED, /pin every package/],
  [
    'a pyproject.toml that is none',
    { pyproject: '[project' },
    Code.ENVIRONMENT_FAILED,
    /pyproject\.toml cannot be read/,
  ],
])('%s is refused', async (_, venv, code, message) => {
  const refused = (await provider('uv')).prepare(request(venv), events(), never);
  await expect(refused).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
});

test('the dependencies of a pyproject.toml are installed', async () => {
  const pyproject = '[project]\nname = "x"\nversion = "1"\ndependencies = ["six==1.17.0"]\n';
  expect((await (await provider('uv')).resolve(request({ pyproject }), never)).lock).toContain('six==1.17.0');
});

test('the next agent process asks no resolver again, and an index that is not allowed any more is refused', async () => {
  const wanted = request({ requirements: ['six==1.17.0'], indexUrl: 'https://pypi.org/simple/' }, 'next');
  const allowing = {
    indexUrl: 'https://index.example/simple',
    allowed: ['https://pypi.org'],
    allowExtra: false,
    fileHosts: [],
  };
  const told = events();
  (await (await provider('uv', allowing)).prepare(wanted, told, never)).release();
  const next = await provider('uv', allowing);
  expect(next.prepared(wanted)).toBeUndefined();
  const again = events();
  (await next.prepare(wanted, again, never)).release();
  expect([again.locks, again.text]).toEqual([told.locks, '']);
  const denying = await provider('uv', { ...allowing, allowed: [] });
  const refused = denying.prepare(wanted, events(), never);
  await expect(refused).rejects.toMatchObject({ code: Code.POLICY_DENIED });
  expect(denying.prepared(wanted)).toBeUndefined();
});

test('a preparation that nobody waits for any more is stopped', async () => {
  const stop = new AbortController();
  const venv = await provider('uv');
  const given = venv.prepare(
    request({ requirements: ['certifi'] }),
    { ...events(), onProgress: () => stop.abort(new Error('enough')) },
    stop.signal,
  );
  await expect(given).rejects.toThrow('enough');
  expect(venv.prepared(request({ requirements: ['certifi'] }))).toBeUndefined();
});
