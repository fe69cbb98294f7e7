import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, test } from 'vitest';
import { EnvironmentBuilds, isRoot, recordedEvents, TOOLS_PATH } from '../../test-support/environment-builds.ts';
import { tempDir } from '../../test-support/temp-dir.ts';
import { Interpreters } from '../interpreters.ts';
import { findTool } from '../tools.ts';
import { type Installer, type InstallerStep, uvInstaller } from './installer.ts';
import { createVenvProvider } from './venv-provider.ts';

// The launcher, and so every build, is started by a process with this variable.
process.env.SECRET_OF_THE_AGENT = 'swordfish';
const builds = await EnvironmentBuilds.start();
afterAll(() => builds.stop());
const never = new AbortController().signal;
const SDISTS = '/opt/sdists';

/** The build script of a package: plants a .pth wherever it can write, and keeps what it has found out for later. */
const BACKEND = `import glob, json, os, sys, zipfile
PTH = "import sys; sys.planted = True\\n"

def build_wheel(directory, config_settings=None, metadata_directory=None):
    planted, seen = [], []
    places = [*sys.path, *glob.glob("/environment/lib/python*/site-packages"), *glob.glob("/usr/lib/python3*/dist-packages"),
              *glob.glob("/usr/local/lib/python3*/dist-packages"), "/cache", "/cache/uv", "/opt/harrier", "${SDISTS}"]
    for place in places:
        try:
            with open(os.path.join(place, "planted.pth"), "w") as file:
                file.write(PTH)
            planted.append(place)
        except OSError:
            pass
    for path in [SECRET, "/etc/shadow", "/var/lib/harrier", *glob.glob("/proc/[0-9]*/environ")]:
        try:
            text = open(path, "rb").read().decode(errors="replace") if os.path.isfile(path) else str(os.listdir(path))
        except OSError:
            continue
        if "swordfish" in text or not path.startswith("/proc"):
            seen.append(path)
    report = {"planted": planted, "seen": seen, "secrets": [name for name, value in os.environ.items() if "swordfish" in value]}
    name = "planter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("planter.py", "REPORT = " + repr(report))
        wheel.writestr("planter.pth", PTH)
        wheel.writestr("planter-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: planter\\nVersion: 1.0\\n")
        wheel.writestr("planter-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("planter-1.0.dist-info/RECORD", "")
    return name
`;

/** A directory with the source distribution of \`planter\`, whose build script looks for this file. */
function sdists(secret: string): string {
  const [work, out] = [tempDir(), tempDir()];
  const tree = join(work, 'planter-1.0');
  mkdirSync(tree);
  writeFileSync(join(tree, 'PKG-INFO'), 'Metadata-Version: 2.1\nName: planter\nVersion: 1.0\n');
  writeFileSync(join(tree, 'backend.py'), `SECRET = ${JSON.stringify(secret)}\n${BACKEND}`);
  writeFileSync(
    join(tree, 'pyproject.toml'),
    '[project]\nname = "planter"\nversion = "1.0"\n[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
  );
  execFileSync('tar', ['-czf', join(out, 'planter-1.0.tar.gz'), '-C', work, 'planter-1.0']);
  execFileSync('chmod', ['-R', 'a+rX', out]);
  return out;
}

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

test('what a build script plants is in its own environment alone, and it finds nothing of the agent', async () => {
  const secret = join(tempDir(), 'identity.json');
  writeFileSync(secret, 'swordfish', { mode: 0o644 });
  const uv = await findTool('uv', TOOLS_PATH);
  const venv = createVenvProvider({
    store: builds.store,
    runs: builds.builds,
    interpreters: new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot),
    installer: offline(uvInstaller(uv ?? 'uv is missing: run npm test, or pip install uv'), sdists(secret)),
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
    const code = `import json, sys
def handler(input):
    try:
        from planter import REPORT
    except ImportError:
        REPORT = None
    return {"planted": hasattr(sys, "planted"), "report": REPORT}
`;
    const outcome = await builds.outcome(prepared, code);
    prepared.release();
    expect(outcome).toMatch(/^succeeded /);
    return JSON.parse(outcome.replace('succeeded ', ''));
  };
  const { planted, report } = await found('acme', 'planter==1.0');
  expect(planted).toBe(true);
  expect(report).toMatchObject({ seen: [], secrets: [] });
  // It did write where a build may: else this test would show nothing.
  expect(report.planted).toContain('/cache');
  expect(report.planted.filter((place: string) => place.startsWith('/usr') || place.startsWith('/opt'))).toEqual([]);
  expect(await found('acme', '')).toEqual({ planted: false, report: null });
  expect(await found('other', '')).toEqual({ planted: false, report: null });
});
