import { statfsSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { EnvironmentBuilds, recordedEvents } from '../test-support/environment-builds.ts';
import { runBuild } from './build-runner.ts';

// What a build script of a package may do is what a step of a build may do: both run in this sandbox.
const builds = await EnvironmentBuilds.start();
afterAll(() => builds.stop());
const never = new AbortController().signal;

async function build(script: string, options: { tenant?: string; hosts?: string[] } = {}): Promise<string> {
  const { tenant = 'acme', hosts = [] } = options;
  return await builds.store.scratch(tenant, never, async (directories) => {
    const command = { tenant, argv: ['sh', '-c', script], input: '', directories, binds: [], hosts };
    return await runBuild(builds.builds, command, recordedEvents(), never);
  });
}

test('a build writes its environment and keeps packages for the next build of its tenant', async () => {
  expect(await build('echo x > /environment/planted.pth && echo package > /cache/kept && echo done')).toBe('done\n');
  expect(await build('cat /cache/kept; ls /environment')).toBe('package\n');
  expect(await build('ls /cache', { tenant: 'other' })).toBe('');
});

test('a build sees nothing of the agent, of other environments, or of the host', async () => {
  expect(await build('env')).not.toMatch(/HARRIER|TOKEN|SECRET|API_KEY/);
  const paths = [
    '/root/.ssh',
    '/etc/shadow',
    '/var/lib/harrier',
    '/run/docker.sock',
    builds.store.hold('acme', 'x')?.tree,
  ];
  for (const path of paths.filter((one) => one !== undefined)) {
    expect(await build(`cat ${path}/* ${path} 2>/dev/null || echo nothing`)).toBe('nothing\n');
  }
  expect(await build('ls /proc | grep -c "^[0-9]"')).toMatch(/^[1-4]\n$/);
  expect(await build('touch /usr/planted 2>/dev/null || echo read-only')).toBe('read-only\n');
});

test('a build reaches its index and nothing else', async () => {
  const reach = (url: string) => `python3 - <<'END'
import urllib.request
try:
    print(urllib.request.urlopen("${url}", timeout=20).status)
except Exception as error:
    print(type(error).__name__, getattr(error, "code", ""), str(error)[:200])
END`;
  const hosts = ['pypi.org:443'];
  expect(await build(reach('https://pypi.org/simple/six/'), { hosts })).toBe('200\n');
  expect(await build(reach('https://example.org/'), { hosts })).toMatch(/403|Forbidden|not allowed/i);
  expect(await build(reach('http://169.254.169.254/latest/meta-data/'), { hosts: ['169.254.169.254:80'] })).not.toMatch(
    /^200/,
  );
  expect(await build(reach('http://127.0.0.1:8000/healthz'), { hosts: ['127.0.0.1:8000'] })).not.toMatch(/^200/);
  expect(await build(reach('https://pypi.org/simple/six/'))).not.toMatch(/^200/);
});

test('a build cannot take room on the disk before it writes, nor write a longer file than there is room for', async () => {
  const reserve = `python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
file = os.open("/cache/reserved", os.O_CREAT | os.O_RDWR)
for mode in (0, 1, 16):
    print(libc.fallocate(file, mode, ctypes.c_int64(0), ctypes.c_int64(1 << 30)), os.strerror(ctypes.get_errno()))
os.posix_fallocate(file, 0, 4096)
print(os.fstat(file).st_blocks)
END`;
  expect(await build(reserve)).toBe(`${'-1 Operation not supported\n'.repeat(3)}8\n`);
  const limit = Number(await build('ulimit -H -f'));
  expect(limit * 512).toBeGreaterThan(0);
  expect(limit * 512).toBeLessThanOrEqual(4 * 1024 ** 3);
  const over = `ulimit -f unlimited 2>/dev/null; truncate -s $((${limit} * 512 + 1)) /cache/over`;
  await expect(build(over)).rejects.toThrow(/File size limit|SIGXFSZ/);
});

test('a build that fills the disk is stopped at once, whatever it does with signals', async () => {
  const { bavail, bsize } = statfsSync('/tmp');
  const floor = bavail * bsize - 256 * 1024 ** 2;
  const store = await builds.openStore({ minFreeBytes: floor, maxBytes: 1024 ** 3 });
  const script = 'trap "" TERM; n=0; while true; do head -c 4194304 /dev/urandom > /environment/$n; n=$((n + 1)); done';
  const filling = store.scratch('acme', never, async (directories, signal) => {
    const command = { tenant: 'acme', argv: ['sh', '-c', script], input: '', directories, binds: [], hosts: [] };
    return await runBuild(builds.builds, command, recordedEvents(), signal);
  });
  await expect(filling).rejects.toThrow(/^the build was stopped: the disk of .* MiB stay free$/);
});

test('a build that hides what it takes in a path that is too long is stopped', async () => {
  const store = await builds.openStore({ minFreeBytes: 0, maxBytes: 1024 ** 3 });
  const script = `
import os, time
os.chdir("/cache")
for _ in range(30):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
time.sleep(60)`;
  const hiding = store.scratch('acme', never, async (directories, signal) => {
    const command = { tenant: 'acme', argv: ['python3', '-c', script], input: '', directories, binds: [], hosts: [] };
    return await runBuild(builds.builds, command, recordedEvents(), signal);
  });
  await expect(hiding).rejects.toThrow(
    'the build was stopped: what the build has written cannot be measured (ENAMETOOLONG)',
  );
  const command = { tenant: 'acme', argv: ['ls', '/cache'], input: '', binds: [], hosts: [] };
  const kept = await store.scratch('acme', never, async (directories) => {
    return await runBuild(builds.builds, { ...command, directories }, recordedEvents(), never);
  });
  expect(kept).toBe('');
});

test('a step that fails tells the end of its standard error', async () => {
  await expect(build('echo one >&2; printf "\\033[31mtwo\\033[0m\\n" >&2; exit 3')).rejects.toThrow(/^one\ntwo$/);
  await expect(build('exit 3')).rejects.toThrow(/3/);
  await expect(build('echo working >&2; kill -SEGV $$')).rejects.toThrow(/^working\n.*SIGSEGV/);
});
