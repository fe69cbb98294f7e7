import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, test } from 'vitest';
import { EnvironmentBuilds, isRoot, recordedEvents, TOOLS_PATH } from '../../test-support/environment-builds.ts';
import { FIND_PLANTED, makePlanter, SECRET } from '../../test-support/planter.ts';
import { tempDir } from '../../test-support/temp-dir.ts';
import type { ChosenIndexes } from '../index-policy.ts';
import { Interpreters } from '../interpreters.ts';
import { findTool } from '../tools.ts';
import { type Installer, type InstallerStep, uvInstaller } from './installer.ts';
import { createVenvProvider } from './venv-provider.ts';

// The launcher, and so every build, is started by a process with this variable.
process.env.SECRET_OF_THE_AGENT = SECRET;
const builds = await EnvironmentBuilds.start();
afterAll(() => builds.stop());
const never = new AbortController().signal;
const SDISTS = '/opt/sdists';

/** uv that finds packages in a directory, and nowhere else. */
function offline(installer: Installer, directory: string): Installer {
  const step = ({ script, variables }: InstallerStep) => ({
    script,
    variables: { ...variables, UV_FIND_LINKS: SDISTS, UV_OFFLINE: '1' },
  });
  return {
    ...installer,
    binds: [...installer.binds, { source: directory, target: SDISTS, writable: false }],
    resolve: (...given) => step(installer.resolve(...given)),
    install: (...given) => step(installer.install(...given)),
    resolveAndInstallWheels: (...given) => step(installer.resolveAndInstallWheels(...given)),
  };
}

test('a build with a password of an index finds nothing of what others have kept, nor they of it', async () => {
  /** Leaves its variables where a later build finds them, and tells as its lock whose it finds. */
  const step = (python: string, { urls }: ChosenIndexes): InstallerStep => ({
    script: 'cat > /dev/null; cat /cache/kept 2> /dev/null; echo "$OWN" >> /cache/kept; echo "$OWN"',
    variables: { PYTHON: python, OWN: urls.join().includes('@') ? 'closed==1' : 'open==1' },
  });
  const venv = createVenvProvider({
    store: builds.store,
    runs: builds.builds,
    interpreters: new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot),
    installer: { name: 'looks', binds: [], resolve: step, install: step, resolveAndInstallWheels: step },
    indexes: { indexUrl: 'https://user:password@private.example', allowed: ['*'], allowExtra: false, fileHosts: [] },
    unavailable: () => undefined,
  });
  const found = async (indexUrl: string) => {
    const value = create(Environment_VenvSchema, { requirements: ['x'], indexUrl });
    const environment = create(EnvironmentSchema, { kind: { case: 'venv', value } });
    const request = { tenant: 'keeper', environment, language: 'python', preload: [] };
    return (await venv.resolve(request, never)).lock;
  };
  expect(await found('https://one.example')).toBe('open==1\n');
  expect(await found('')).toBe('closed==1\n');
  expect(await found('https://two.example')).toBe('open==1\nopen==1\n');
});

test('what a build script plants is in its own environment alone, and it finds nothing of the agent', async () => {
  const secret = join(tempDir(), 'identity.json');
  writeFileSync(secret, SECRET, { mode: 0o644 });
  const uv = await findTool('uv', TOOLS_PATH);
  const venv = createVenvProvider({
    store: builds.store,
    runs: builds.builds,
    interpreters: new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot),
    installer: offline(
      uvInstaller(uv ?? 'uv is missing: run npm test, or pip install uv'),
      dirname(makePlanter(secret, SDISTS)),
    ),
    indexes: { indexUrl: 'https://pypi.org/simple', allowed: [], allowExtra: false, fileHosts: [] },
    unavailable: () => undefined,
  });
  /** What code finds in an environment of a tenant that is made of a lock. */
  const found = async (tenant: string, lock: string) => {
    const value = create(Environment_VenvSchema, { lock });
    const environment = create(EnvironmentSchema, { kind: { case: 'venv', value } });
    const prepared = await venv.prepare(
      { tenant, environment, language: 'python', preload: [] },
      recordedEvents(),
      never,
    );
    const outcome = await builds.outcome(prepared, FIND_PLANTED);
    prepared.release();
    expect(outcome).toMatch(/^succeeded /);
    return JSON.parse(outcome.replace('succeeded ', ''));
  };
  const { planted, report, filtered } = await found('acme', 'planter==1.0');
  expect(planted).toBe(true);
  // Its own interpreter ran, behind the filter from its first instruction.
  expect(filtered).toBe('2');
  expect(report).toMatchObject({ seen: [], secrets: [] });
  // It did write where a build may: else this test would show nothing.
  expect(report.planted).toContain('/cache');
  expect(report.planted.filter((place: string) => place.startsWith('/usr') || place.startsWith('/opt'))).toEqual([]);
  expect(await found('acme', '')).toEqual({ planted: false, report: null, filtered: null });
  expect(await found('other', '')).toEqual({ planted: false, report: null, filtered: null });
});
