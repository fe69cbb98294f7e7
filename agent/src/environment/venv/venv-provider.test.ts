import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Launcher } from '../../launcher/launcher.ts';
import { PrivateRuns } from '../../launcher/private-runs.ts';
import { resolvePython } from '../../launcher/python.ts';
import { startLauncher } from '../../launcher/start-launcher.ts';
import { call, LauncherRecord } from '../../test-support/real-launcher.ts';
import { silentLogger } from '../../test-support/silent-logger.ts';
import type { EnvironmentRequest, PreparationEvents } from '../environment.ts';
import { EnvironmentStore } from '../environment-store.ts';
import { Interpreters } from '../interpreters.ts';
import { findTool } from '../tools.ts';
import { pipInstaller, uvInstaller } from './installer.ts';
import { VenvProvider } from './venv-provider.ts';

// The real launcher, sandbox, uv, pip and package index.
const isRoot = process.getuid?.() === 0;
let directory = '';
let launcher: Launcher;
let runs: PrivateRuns;
let store: EnvironmentStore;
const record = new LauncherRecord();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'venv-'));
  const socketPath = join(directory, 'launcher.sock');
  runs = new PrivateRuns(() => launcher);
  launcher = new Launcher({
    socketPath,
    start: async () => {
      const { path } = await resolvePython('python3');
      await startLauncher({
        ...{ python: path, jobPython: undefined, dataDir: directory, socketPath },
        ...{ allowUnsandboxed: false, spoolBytes: undefined },
      });
    },
    events: runs.intercept(record.events),
    logger: silentLogger(),
  });
  await launcher.open();
  const stored = await mkdtemp(join(tmpdir(), 'venv-store-'));
  store = await EnvironmentStore.open({
    directory: join(stored, 'environments'),
    maxBytes: 4 * 1024 ** 3,
    minFreeBytes: 64 * 1024 ** 2,
    builder: isRoot ? { uid: 70621, gid: 70621 } : undefined,
    logger: silentLogger(),
  });
  await chmod(stored, 0o711);
  afterAll(async () => await rm(stored, { recursive: true }));
});
afterAll(async () => {
  await launcher.stop(0);
  launcher.close();
  await rm(directory, { recursive: true });
});

async function provider(kind: 'uv' | 'pip'): Promise<VenvProvider> {
  const searchPath = process.env.PATH ?? '';
  const uv = await findTool('uv', `${searchPath}:${join(import.meta.dirname, '../../../../.venv/bin')}`);
  return new VenvProvider({
    store,
    runs,
    interpreters: new Interpreters(searchPath, () => '/usr/bin/python3', isRoot),
    installer: kind === 'uv' ? uvInstaller(uv ?? 'uv is missing: run npm test, or pip install uv') : pipInstaller(),
    indexes: { indexUrl: 'https://pypi.org/simple', allowed: [], allowExtra: false, fileHosts: [] },
    unavailable: () => undefined,
  });
}

const request = (venv: MessageInitShape<typeof Environment_VenvSchema>, tenant = 'acme'): EnvironmentRequest => ({
  tenant,
  environment: create(EnvironmentSchema, { kind: { case: 'venv', value: create(Environment_VenvSchema, venv) } }),
  language: 'python',
  preload: [],
});

function events(): PreparationEvents & { text: string; locks: string[] } {
  const seen = {
    text: '',
    locks: [] as string[],
    onOutput: (data: Uint8Array) => {
      seen.text += Buffer.from(data).toString();
    },
    onProgress: () => undefined,
    decideLock: async (lock: string) => {
      seen.locks.push(lock);
      return lock;
    },
  };
  return seen;
}

const never = new AbortController().signal;
let calls = 0;

/** What a handler in the environment answers. */
async function answer(environment: NonNullable<Awaited<ReturnType<VenvProvider['prepare']>>['start']>, code: string) {
  const id = `call-${calls++}`;
  const [message, ...body] = call(id, { code });
  launcher.startAttempt({ ...message, environment }, ...body);
  const line = await record.until(`finished ${id}/1`);
  launcher.acknowledge(id, 1, 0, 0, true);
  return line.replace(`finished ${id}/1 `, '');
}

describe.each(['uv', 'pip'] as const)('with %s', (kind) => {
  test('requirements are resolved, installed with their hashes, and found again', async () => {
    const venv = await provider(kind);
    const wanted = request({ requirements: ['six==1.17.0'] }, kind);
    expect(venv.prepared(wanted)).toBeUndefined();
    const told = events();
    const prepared = await venv.prepare(wanted, told, never);
    expect(told.locks[0]).toMatch(/^six==1\.17\.0[\s\\]+--hash=sha256:[0-9a-f]{64}/);
    const start = prepared.start ?? { key: '' };
    const code = 'import six, sys\ndef handler(i): return {"v": six.__version__, "p": sys.prefix}\n';
    expect(await answer(start, code)).toBe('succeeded {"v":"1.17.0","p":"/environment"}');
    const write = 'import six\ndef handler(i):\n    open(six.__file__, "a")\n';
    expect(await answer(start, write)).toBe('failed HANDLER_ERROR');
    const again = venv.prepared(wanted);
    expect(again?.start?.key).toBe(start.key);
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

test('an environment without packages is a Python of its own', async () => {
  const prepared = await (await provider('uv')).prepare(request({}), events(), never);
  expect(await answer(prepared.start ?? { key: '' }, 'import sys\ndef handler(i): return {"p": sys.prefix}\n')).toBe(
    'succeeded {"p":"/environment"}',
  );
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
