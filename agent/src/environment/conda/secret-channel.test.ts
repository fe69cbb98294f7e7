import { execFileSync } from 'node:child_process';
import { chmodSync, createReadStream, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Environment_CondaSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, test } from 'vitest';
import { EnvironmentBuilds, isRoot, recordedEvents, TOOLS_PATH } from '../../test-support/environment-builds.ts';
import { runBuild } from '../build-runner.ts';
import type { EnvironmentRequest } from '../environment.ts';
import { Interpreters } from '../interpreters.ts';
import { findTool } from '../tools.ts';
import { uvInstaller } from '../venv/installer.ts';
import { createVenvProvider } from '../venv/venv-provider.ts';
import { createCondaProvider } from './conda-provider.ts';

const directory = mkdtempSync(join(tmpdir(), 'channel-'));
chmodSync(directory, 0o755);
execFileSync('/usr/bin/python3', [join(import.meta.dirname, '../../../../test/fixtures/conda_channel.py'), directory]);
/** What was asked for that has neither password nor token. */
const unknown: string[] = [];
// A proxy of the host: what builds ask the world for arrives here.
const world = createServer(({ url = '', headers }, response) => {
  const [, token, path = ''] = /^(\/t\/tk-secret)?\/channel(\/.*)$/.exec(new URL(url).pathname) ?? [];
  const known = token !== undefined || headers.authorization === `Basic ${btoa('operator:pw-secret')}`;
  if (!known) unknown.push(url);
  if (known && existsSync(join(directory, path))) createReadStream(join(directory, path)).pipe(response);
  else response.writeHead(404).end();
});
await new Promise<void>((resolve) => void world.listen(0, '127.0.0.1', resolve));
// Of the launcher, which this process starts.
process.env.http_proxy = `http://127.0.0.1:${(world.address() as AddressInfo).port}`;
const builds = await EnvironmentBuilds.start();
afterAll(async () => {
  await builds.stop();
  world.close();
  rmSync(directory, { recursive: true });
});

const uv = (await findTool('uv', TOOLS_PATH)) ?? '';
const indexes = { indexUrl: 'https://pypi.org/simple', allowed: [], allowExtra: false, fileHosts: [] };
const common = { store: builds.store, runs: builds.builds, indexes, unavailable: () => undefined };
const interpreters = new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot);
const venv = createVenvProvider({ ...common, interpreters, installer: uvInstaller(uv) });
const never = new AbortController().signal;
const ORIGINS = `import glob
def handler(i): return {"of": [open(name).read() for name in glob.glob("/environment/conda-meta/*.json")]}
`;

const request = (value: MessageInitShape<typeof Environment_CondaSchema>): EnvironmentRequest => ({
  tenant: 'acme',
  environment: create(EnvironmentSchema, { kind: { case: 'conda', value: create(Environment_CondaSchema, value) } }),
  language: 'python',
  preload: [],
});

test.each([
  ['password', 'http://operator:pw-secret@192.0.2.1/channel'],
  ['token', 'http://192.0.2.1/t/tk-secret/channel'],
])('the %s of a channel is in no lock, no environment and no message', async (_, channel) => {
  const conda = createCondaProvider({ ...common, uv, venv, channels: { channels: [channel], allowed: [] } });
  const told = recordedEvents();
  const prepared = await conda.prepare(request({ dependencies: ['python', 'greeter>=1'] }), told, never);
  const [lock = ''] = told.locks;
  expect(lock).toMatch(/^@EXPLICIT\nhttp:\/\/192\.0\.2\.1\/channel\/noarch\/greeter-1\.2\.0-pyh0_0\.tar\.bz2#/);
  const origins = await builds.outcome(prepared, ORIGINS);
  expect(origins).toContain('http://192.0.2.1/channel/noarch/greeter');
  prepared.release();
  // By its lock alone, as every later agent has it.
  const again = await conda
    .prepare(request({ lock: lock.replace(/greeter/, 'no-greeter') }), told, never)
    .catch((error: Error) => error.message);
  expect(again).toContain('http://192.0.2.1/channel/noarch/no-greeter-1.2.0-pyh0_0.tar.bz2');
  const missing = conda.prepare(request({ dependencies: ['no-such'] }), told, never);
  const why = await missing.then(String, (error: Error) => error.message);
  expect(unknown).toEqual([]);
  // Nor where a build script of a package finds it later.
  const left = await builds.store.scratch('acme', never, async (directories) => {
    const argv = ['sh', '-c', 'grep -rlaE "(pw|tk)-secret" /cache || true'];
    const command = { tenant: 'acme', argv, input: '', directories, binds: [], hosts: [] };
    return await runBuild(builds.builds, command, recordedEvents(), never);
  });
  expect(left).toBe('');
  for (const text of [origins, lock, told.text, why, String(again)]) expect(text).not.toMatch(/(pw|tk)-secret/);
});
