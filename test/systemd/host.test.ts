import { afterAll, expect, test } from 'vitest';
import { listProcesses } from '../support/processes.ts';
import { Program } from '../support/program.ts';
import { SystemdHost } from '../support/systemd-host.ts';

const hosts: SystemdHost[] = [];
afterAll(async () => {
  await Promise.all(hosts.map((host) => host.stop()));
});

async function boot(): Promise<SystemdHost> {
  const host = await SystemdHost.boot();
  hosts.push(host);
  return host;
}

/** A run of tests that boots a system and is killed. @returns the processes that it has started, as numbers with their start */
async function runThatIsKilled(): Promise<string[]> {
  const script = `
    const { SystemdHost } = await import(${JSON.stringify(new URL('../support/systemd-host.ts', import.meta.url))});
    const host = await SystemdHost.boot();
    await host.shell('systemd-run --quiet --unit=same sleep infinity');
    process.stdout.write('up\\n');
    setInterval(() => {}, 1000);`;
  const argv = [process.execPath, '--input-type=module', '--eval', script] as const;
  const run = new Program({ argv: [...argv], env: process.env as Record<string, string> });
  await run.firstLine();
  const started = run.tree().filter(({ pid }) => pid !== run.pid);
  await run.stop('SIGKILL');
  return started.map(({ pid, startTicks }) => `${pid}.${startTicks}`);
}

test('systems beside each other have units of the same name, and what a killed run has left goes with the next boot', async () => {
  const [first, left] = await Promise.all([boot(), runThatIsKilled()]);
  const running = (): string[] => listProcesses().map(({ pid, startTicks }) => `${pid}.${startTicks}`);
  await first.shell('systemd-run --quiet --unit=same sleep infinity');
  expect(left.length).toBeGreaterThan(2);
  expect(running()).toEqual(expect.arrayContaining(left));

  const second = await boot();
  expect(running().filter((process) => left.includes(process))).toEqual([]);
  expect(await first.property('same', 'ActiveState')).toBe('active');

  await second.shell('systemd-run --quiet --unit=same sleep infinity && systemctl stop same');
  expect(await second.shell('systemctl list-units --all --no-legend same.service')).toBe('');
  expect(await first.property('same', 'ActiveState')).toBe('active');
  // Without the tools for it, which a minimal Debian does not have.
  expect(await first.shell('grep --files-with-matches --line-regexp sleep /proc/[0-9]*/comm | wc --lines')).toBe('1');
});
