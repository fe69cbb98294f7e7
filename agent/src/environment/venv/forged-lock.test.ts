import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, test } from 'vitest';
import { EnvironmentBuilds, isRoot, recordedEvents, TOOLS_PATH } from '../../test-support/environment-builds.ts';
import { tempDir } from '../../test-support/temp-dir.ts';
import type { EnvironmentProvider } from '../environment.ts';
import { Interpreters } from '../interpreters.ts';
import { findTool } from '../tools.ts';
import { type Installer, type InstallerStep, pipInstaller, uvInstaller } from './installer.ts';
import { createVenvProvider } from './venv-provider.ts';

// What a lock is made of must not be up to a package that is named in it.
const builds = await EnvironmentBuilds.start();
afterAll(() => builds.stop());
const never = new AbortController().signal;
const PACKAGES = '/opt/packages';

const WRITE_WHEEL = `import os, zipfile
def write(directory, name, version):
    file = f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(os.path.join(directory, file), "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return file
`;

/** Writes a line of a lock into whatever the other processes of its sandbox have open. */
const FORGE = `import glob
for path in glob.glob("/proc/[0-9]*/fd/1") + ["/tmp/lock.txt"]:
    try:
        with open(path, "a") as file:
            file.write("\\nforged==6.6.6\\n")
    except OSError:
        pass
`;

/** A directory of packages: `honest` as a wheel, `evil` as a source distribution, and an older wheel of it if asked for. */
function packages(olderWheel: boolean): string {
  const [work, out] = [tempDir(), tempDir()];
  const tree = join(work, 'evil-2.0');
  mkdirSync(tree);
  writeFileSync(join(tree, 'PKG-INFO'), 'Metadata-Version: 2.1\nName: evil\nVersion: 2.0\n');
  const build = `def build_wheel(directory, config_settings=None, metadata_directory=None):\n    exec(${JSON.stringify(FORGE)})\n    return write(directory, "evil", "2.0")\n`;
  writeFileSync(join(tree, 'backend.py'), `${WRITE_WHEEL}\n${build}`);
  const project = '[project]\nname = "evil"\nversion = "2.0"\n';
  const backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n';
  writeFileSync(join(tree, 'pyproject.toml'), project + backend);
  execFileSync('tar', ['-czf', join(out, 'evil-2.0.tar.gz'), '-C', work, 'evil-2.0']);
  const wheels = `write(${JSON.stringify(out)}, "honest", "1.0")\n${olderWheel ? `write(${JSON.stringify(out)}, "evil", "1.0")\n` : ''}`;
  execFileSync('python3', ['-c', `${WRITE_WHEEL}\n${wheels}`]);
  execFileSync('chmod', ['-R', 'a+rX', out]);
  return out;
}

/** An installer that finds packages in a directory, and nowhere else. */
function offline(installer: Installer, directory: string): Installer {
  const step = ({ script, variables }: InstallerStep) => ({
    script,
    variables: { ...variables, UV_FIND_LINKS: PACKAGES, UV_OFFLINE: '1', PIP_FIND_LINKS: PACKAGES, PIP_NO_INDEX: '1' },
  });
  return {
    ...installer,
    binds: [...installer.binds, { source: directory, target: PACKAGES, writable: false }],
    resolve: (...given) => step(installer.resolve(...given)),
    install: (...given) => step(installer.install(...given)),
    resolveAndInstallWheels: (...given) => step(installer.resolveAndInstallWheels(...given)),
  };
}

async function provider(
  kind: 'uv' | 'pip',
  directory: string,
  indexUrl = 'https://pypi.org/simple',
): Promise<EnvironmentProvider> {
  const uv = await findTool('uv', TOOLS_PATH);
  const installer =
    kind === 'pip' ? pipInstaller() : uvInstaller(uv ?? 'uv is missing: run npm test, or pip install uv');
  return createVenvProvider({
    store: builds.store,
    runs: builds.builds,
    interpreters: new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot),
    installer: offline(installer, directory),
    indexes: { indexUrl, allowed: [], allowExtra: false, fileHosts: [] },
    unavailable: () => undefined,
  });
}

/** The pins of the lock that is told for `honest` and `evil`, and what code then imports. */
async function made(venv: EnvironmentProvider, tenant: string): Promise<{ pins: string[]; outcome: string }> {
  const value = create(Environment_VenvSchema, { requirements: ['honest', 'evil'] });
  const environment = create(EnvironmentSchema, { kind: { case: 'venv', value } });
  const told = recordedEvents();
  const prepared = await venv.prepare({ tenant, environment, language: 'python', preload: [] }, told, never);
  const code = 'import evil, honest\ndef handler(i): return {"v": [honest.VERSION, evil.VERSION]}\n';
  const outcome = await builds.outcome(prepared, code);
  prepared.release();
  return { pins: told.locks.flatMap((lock) => lock.match(/^\S+==\S+/gm) ?? []).toSorted(), outcome };
}

test.each(['uv', 'pip'] as const)('%s runs no build script as long as wheels do', async (kind) => {
  const venv = await provider(kind, packages(true));
  const expected = { pins: ['evil==1.0', 'honest==1.0'], outcome: 'succeeded {"v":["1.0","1.0"]}' };
  expect(await made(venv, kind)).toEqual(expected);
  const value = create(Environment_VenvSchema, { requirements: ['evil', 'honest'] });
  const environment = create(EnvironmentSchema, { kind: { case: 'venv', value } });
  const { lock } = await venv.resolve({ tenant: kind, environment, language: 'python', preload: [] }, never);
  expect((lock.match(/^\S+==\S+/gm) ?? []).toSorted()).toEqual(expected.pins);
});

test('what must be built is built after the lock was made, where it cannot change it', async () => {
  const expected = { pins: ['evil==2.0', 'honest==1.0'], outcome: 'succeeded {"v":["1.0","2.0"]}' };
  expect(await made(await provider('uv', packages(false)), 'builds')).toEqual(expected);
});

test.each(['uv', 'pip'] as const)('%s builds nothing where the password of an index can be seen', async (kind) => {
  const venv = await provider(kind, packages(false), 'https://user:swordfish@pypi.org/simple');
  await expect(made(venv, `${kind}-secret`)).rejects.toThrow(/evil/);
});
