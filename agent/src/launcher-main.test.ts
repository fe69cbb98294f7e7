import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { readConfig } from './config.ts';
import { Launcher } from './launcher/launcher.ts';
import { buildOf } from './launcher/start-launcher.ts';
import { launcherOptionsOf } from './launcher-options.ts';
import { call, LauncherRecord } from './test-support/real-launcher.ts';
import { silentLogger } from './test-support/silent-logger.ts';
import { tempDir } from './test-support/temp-dir.ts';

const PROGRAM = fileURLToPath(new URL('launcher-main.ts', import.meta.url));

function start(variables: Record<string, string>) {
  const env = { PATH: process.env.PATH ?? '', ...variables };
  const child = spawn(process.execPath, [PROGRAM], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return { child, written: () => stderr, ended: once(child, 'close') };
}

test('a service runs the launcher that the agent would start, and the agent finds it', async () => {
  const dataDir = tempDir();
  const variables = {
    HARRIER_SERVER_URL: 'http://127.0.0.1:1',
    HARRIER_AGENT_DATA_DIR: dataDir,
    HARRIER_AGENT_START_LAUNCHER: 'false',
    HARRIER_SPOOL_BYTES: String(128 * 1024 * 1024),
  };
  const service = start(variables);
  const record = new LauncherRecord();
  const socketPath = join(dataDir, 'launcher.sock');
  const launcher = new Launcher({ socketPath, start: undefined, events: record.events, logger: silentLogger() });
  onTestFinished(() => launcher.close());
  await launcher.open();
  expect(record.welcomes[0]?.pid).toBe(service.child.pid);
  expect(launcher.build).toBe(buildOf(await launcherOptionsOf(readConfig({}, { ...variables }))));
  expect(launcher.startedHere).toBe(false);
  launcher.startAttempt(...call('e1', { argv: ['true'] }));
  expect(await record.until('finished')).toContain('finished e1/1 succeeded');
  await launcher.stop(0);
  expect(await service.ended).toEqual([0, null]);
  // The log goes where the service manager collects it.
  expect(service.written()).toContain('"msg": "ready"');
});

test('settings that are wrong end the service with the code that stands for it', async () => {
  const { ended, written } = start({ HARRIER_SERVER_URL: 'ftp://x', HARRIER_AGENT_SLOTS: 'many' });
  expect(await ended).toEqual([78, null]);
  expect(written()).toMatch(/HARRIER_SERVER_URL must be .*\nharrier launcher: HARRIER_AGENT_SLOTS must be/);
});
