import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { EnvironmentBuilds, recordedEvents } from '../test-support/environment-builds.ts';
import { runBuild } from './build-runner.ts';
import { BuildRuns, buildBounds } from './build-runs.ts';

const GIB = 1024 ** 3;
const builds = await EnvironmentBuilds.start();
afterAll(() => builds.stop());
const never = new AbortController().signal;

test('packages get half of the host at most, and what the operator allows a call', () => {
  const host = { memoryBytes: 6 * GIB, cores: 3 };
  expect(buildBounds(6 * GIB, host)).toEqual({ memoryBytes: 3 * GIB, cpu: 1.5, atOnce: 3 });
  expect(buildBounds(GIB, host).memoryBytes).toBe(GIB);
  expect(buildBounds(512 * GIB, { memoryBytes: 512 * GIB, cores: 64 })).toEqual({
    memoryBytes: 8 * GIB,
    cpu: 32,
    atOnce: 4,
  });
  expect(buildBounds(GIB, { memoryBytes: GIB, cores: 1 }).cpu).toBe(1);
});

test('builds beyond the bound wait in order and say so; one that nobody wants any more leaves the queue', async () => {
  const runs = new BuildRuns(builds.runs, { memoryBytes: GIB, cpu: 1, atOnce: 1 });
  await builds.store.scratch('acme', never, async (directories) => {
    const marked = (name: string) => existsSync(join(directories.tree, name));
    const build = (script: string, signal = never) => {
      const events = recordedEvents();
      const command = { tenant: 'acme', argv: ['sh', '-c', script], input: '', directories, binds: [], hosts: [] };
      return { events, end: runBuild(runs, command, events, signal) };
    };
    const first = build('cd /environment; touch began; until [ -e go ]; do sleep 0.01; done; touch first');
    await vi.waitFor(() => expect(marked('began')).toBe(true));
    const abort = new AbortController();
    const unwanted = build('touch /environment/unwanted', abort.signal);
    const second = build('cd /environment && test -e first && touch second');
    const third = build('cd /environment && test -e second');
    expect(first.events.text).toBe('');
    expect(second.events.text).toMatch(
      /as many builds run on this agent as may at once \(1\); this is number 2 in the queue\n$/,
    );
    abort.abort(new Error('nobody wants it'));
    await expect(unwanted.end).rejects.toThrow('nobody wants it');
    writeFileSync(join(directories.tree, 'go'), '');
    await Promise.all([first.end, second.end, third.end]);
    expect(marked('unwanted')).toBe(false);
  });
});

test('a build that takes more memory than it may ends, and says so', async () => {
  const runs = new BuildRuns(builds.runs, { memoryBytes: 64 * 1024 ** 2, cpu: 1, atOnce: 1 });
  const argv = ['python3', '-c', 'held = [bytearray(b"x") * (1 << 20) for _ in range(1000)]'];
  await builds.store.scratch('acme', never, async (directories) => {
    const command = { tenant: 'acme', argv, input: '', directories, binds: [], hosts: [] };
    await expect(runBuild(runs, command, recordedEvents(), never)).rejects.toThrow(/MemoryError|more memory/i);
  });
});
