import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Environment_CondaSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, test } from 'vitest';
import { EnvironmentBuilds, isRoot, recordedEvents, TOOLS_PATH } from '../../test-support/environment-builds.ts';
import { FIND_PLANTED, makePlanter, type PlanterReport, SECRET } from '../../test-support/planter.ts';
import { tempDir } from '../../test-support/temp-dir.ts';
import { runBuild } from '../build-runner.ts';
import { Interpreters } from '../interpreters.ts';
import { findTool } from '../tools.ts';
import { uvInstaller } from '../venv/installer.ts';
import { createVenvProvider } from '../venv/venv-provider.ts';
import { createCondaProvider } from './conda-provider.ts';

// The launcher, and so every build, is started by a process with this variable.
process.env.SECRET_OF_THE_AGENT = SECRET;
const builds = await EnvironmentBuilds.start();
afterAll(() => builds.stop());
const never = new AbortController().signal;
/** Where the sandbox of a build has the first channel that is a directory. */
const CHANNEL = '/opt/harrier/channels/0';

/** A channel that also has the real uv, and a directory for what uv is to find. */
async function makeChannel(): Promise<string> {
  const path = tempDir();
  chmodSync(path, 0o755);
  execFileSync('/usr/bin/python3', [join(import.meta.dirname, '../../../../test/fixtures/conda_channel.py'), path]);
  const uv = await findTool('uv', TOOLS_PATH);
  if (uv === undefined) throw new Error('uv is missing: run npm test, or pip install uv');
  copyFileSync(uv, join(path, 'uv'));
  mkdirSync(join(path, 'sdists'));
  return path;
}

/** uv that finds packages in the channel, and nowhere else. */
function offlineUv(): string {
  const path = join(tempDir(), 'uv');
  const script = `#!/bin/sh\nUV_FIND_LINKS=${CHANNEL}/sdists UV_OFFLINE=1 exec ${CHANNEL}/uv "$@"\n`;
  writeFileSync(path, script, { mode: 0o755 });
  return path;
}

/** A wheel, `spy` 1.0: whenever a Python starts that reads `.pth` files, it keeps the variables that it sees. Its SHA-256. */
function makeSpy(directory: string): string {
  const file = join(directory, 'spy-1.0-py3-none-any.whl');
  const look = `import os, sys; sys.spied = True; open("/environment/seen", "a").write(repr(dict(os.environ)))\n`;
  const script = `import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("spy.pth", sys.argv[2])
    wheel.writestr("spy.py", "VERSION = 1\\n")
    wheel.writestr("spy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: spy\\nVersion: 1.0\\n")
    wheel.writestr("spy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("spy-1.0.dist-info/RECORD", "spy.pth,,\\nspy.py,,\\nspy-1.0.dist-info/METADATA,,\\nspy-1.0.dist-info/WHEEL,,\\nspy-1.0.dist-info/RECORD,,\\n")
`;
  execFileSync('/usr/bin/python3', ['-c', script, file, look]);
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

const INDEX = 'https://pypi.org/simple';

/** Environments from the channel in a directory, with pip sections from an index; conda's own tools come from the public one. */
async function condaOf(directory: string, indexUrl: string) {
  const indexes = { indexUrl: INDEX, allowed: [], allowExtra: false, fileHosts: [] };
  const common = { store: builds.store, runs: builds.builds, indexes, unavailable: () => undefined };
  const interpreters = new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot);
  const installer = uvInstaller((await findTool('uv', TOOLS_PATH)) ?? '');
  return createCondaProvider({
    ...common,
    indexes: { ...indexes, indexUrl },
    uv: offlineUv(),
    venv: createVenvProvider({ ...common, interpreters, installer }),
    channels: { channels: [`file://${directory}`], allowed: [] },
  });
}

test('the password of the index is seen by no package of a pip section', async () => {
  const directory = await makeChannel();
  const digest = makeSpy(join(directory, 'sdists'));
  const conda = await condaOf(directory, 'https://user:swordfish@pypi.org/simple');
  const request = (tenant: string, value: MessageInitShape<typeof Environment_CondaSchema>) => ({
    ...{ tenant, language: 'python', preload: [] },
    environment: create(EnvironmentSchema, {
      kind: { case: 'conda', value: create(Environment_CondaSchema, value) },
    }),
  });
  const { lock } = await conda.resolve(request('solver', { dependencies: ['python'] }), never);
  const spied = `${lock}# pip:\n# spy==1.0 --hash=sha256:${digest}\n`;
  const prepared = await conda.prepare(request('spied', { lock: spied }), recordedEvents(), never);
  const look = `import os, spy, sys
def handler(i):
    seen = open("/environment/seen").read() if os.path.exists("/environment/seen") else ""
    return {"spied": hasattr(sys, "spied"), "compiled": os.path.exists(spy.__cached__), "secret": "swordfish" in seen}
`;
  const outcome = await builds.outcome(prepared, look);
  prepared.release();
  // The file is one that a Python reads at its start: else this test would show nothing.
  expect(outcome).toBe('succeeded {"spied":true,"compiled":true,"secret":false}');
  // Nor is anything that was made with the password, or ran with it, from where build scripts of packages write.
  const kept = await builds.store.scratch('spied', never, async (directories) => {
    const argv = ['sh', '-c', 'find /cache -mindepth 1 -type f'];
    const command = { tenant: 'spied', argv, input: '', directories, binds: [], hosts: [] };
    return await runBuild(builds.builds, command, recordedEvents(), never);
  });
  expect(kept).toBe('');
});

test('what a package of a pip section plants is in its own environment alone, and it finds nothing of the agent', async () => {
  const directory = await makeChannel();
  const kept = join(tempDir(), 'identity.json');
  writeFileSync(kept, SECRET, { mode: 0o644 });
  const sdist = makePlanter(kept, CHANNEL);
  copyFileSync(sdist, join(directory, 'sdists', basename(sdist)));
  const conda = await condaOf(directory, INDEX);
  /** What code finds in an environment of a tenant, and the lock that this came to. */
  const found = async (tenant: string, conda_: MessageInitShape<typeof Environment_CondaSchema>) => {
    const environment = create(EnvironmentSchema, {
      kind: { case: 'conda', value: create(Environment_CondaSchema, conda_) },
    });
    const events = recordedEvents();
    const prepared = await conda.prepare({ tenant, environment, language: 'python', preload: [] }, events, never);
    const outcome = await builds.outcome(prepared, FIND_PLANTED);
    prepared.release();
    expect(outcome).toMatch(/^succeeded /);
    const { planted, report, filtered } = JSON.parse(outcome.replace('succeeded ', ''));
    return { planted: planted as boolean, report: report as PlanterReport, filtered, lock: events.locks[0] ?? '' };
  };
  const { lock } = await found('acme', { dependencies: ['python'] });
  const digest = createHash('sha256').update(readFileSync(sdist)).digest('hex');
  const hostile = `${lock}# pip:\n# planter==1.0 \\\n#     --hash=sha256:${digest}\n`;
  const { planted, report, filtered } = await found('acme', { lock: hostile });
  expect(planted).toBe(true);
  // Its own interpreter ran, behind the filter from its first instruction.
  expect(filtered).toBe('2');
  expect(report).toMatchObject({ seen: [], secrets: [] });
  // It did write where a build may, also to what is kept of conda's packages: else this test would show nothing.
  expect(report.planted).toContain('/cache');
  expect(report.planted.filter((place) => place.startsWith('/usr') || place.startsWith('/opt'))).toEqual([]);
  const clean = { planted: false, report: null, filtered: null };
  expect(await found('acme', { dependencies: ['python', 'greeter'] })).toMatchObject(clean);
  expect(await found('other', { dependencies: ['python'] })).toMatchObject(clean);
});
