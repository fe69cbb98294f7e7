import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { createLogger } from '../logger.ts';
import { takeSystemdSettings } from './settings.ts';
import { Systemd } from './systemd.ts';

const logger = createLogger({ name: 'test', level: 'silent' });
const directory = mkdtempSync(join(tmpdir(), 'harrier-systemd-'));
const told = join(directory, 'told');
const command = join(directory, 'systemd-notify');
writeFileSync(
  command,
  `#!/bin/sh\nprintf '%s ' "$NOTIFY_SOCKET" >> ${told}\nprintf '[%s]' "$@" >> ${told}\necho >> ${told}\n`,
);
chmodSync(command, 0o755);
const SETTINGS = { socket: '/run/systemd/notify', watchdogMs: undefined };

afterEach(() => {
  vi.useRealTimers();
  rmSync(told, { force: true });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test('the variables of systemd are read once, and are not there for children', () => {
  const environment = { NOTIFY_SOCKET: '/run/systemd/notify', WATCHDOG_USEC: '90000000', WATCHDOG_PID: '7', HOME: '/' };
  expect(takeSystemdSettings(environment, 7)).toEqual({ socket: '/run/systemd/notify', watchdogMs: 90_000 });
  expect(environment).toEqual({ HOME: '/' });
});

test.each([
  ['nothing', {}, undefined],
  ['a socket alone', { NOTIFY_SOCKET: '@abstract' }, { socket: '@abstract', watchdogMs: undefined }],
  [
    'a watchdog of another process',
    { NOTIFY_SOCKET: '/run/n', WATCHDOG_USEC: '1000000', WATCHDOG_PID: '8' },
    { socket: '/run/n', watchdogMs: undefined },
  ],
  ['nonsense', { NOTIFY_SOCKET: '/run/n', WATCHDOG_USEC: 'soon' }, { socket: '/run/n', watchdogMs: undefined }],
])('of %s it makes the settings that follow', (_, environment, settings) => {
  expect(takeSystemdSettings(environment, 7)).toEqual(settings);
});

test('what is said arrives in order, each status once, on one line', async () => {
  const systemd = new Systemd(SETTINGS, logger, command);
  systemd.ready('not linked\nyet');
  systemd.status('linked');
  systemd.status('linked');
  systemd.stopping();
  await systemd.told;
  expect(readFileSync(told, 'utf8')).toBe(
    [
      '/run/systemd/notify [READY=1][STATUS=not linked yet]',
      '/run/systemd/notify [STATUS=linked]',
      '/run/systemd/notify [STOPPING=1][STATUS=Stopping]',
      '',
    ].join('\n'),
  );
});

test('the watchdog hears of a service that is well, and restarts one that says what is wrong', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  const systemd = new Systemd({ ...SETTINGS, watchdogMs: 30_000 }, logger, command);
  let wrong: string | undefined;
  systemd.watch(() => wrong);
  vi.advanceTimersByTime(10_000);
  wrong = 'it hangs';
  vi.advanceTimersByTime(10_000);
  systemd.close();
  vi.advanceTimersByTime(60_000);
  await systemd.told;
  expect(readFileSync(told, 'utf8')).toBe(
    '/run/systemd/notify [WATCHDOG=1]\n/run/systemd/notify [WATCHDOG=trigger][STATUS=it hangs]\n',
  );
});

test('a systemd-notify that is missing is logged once and breaks nothing', async () => {
  const errors = vi.fn();
  const systemd = new Systemd(SETTINGS, { ...logger, error: errors } as never, '/nonexistent/systemd-notify');
  systemd.ready('ready');
  systemd.status('linked');
  await systemd.told;
  expect(errors).toHaveBeenCalledTimes(1);
  expect(errors.mock.calls[0]).toEqual([
    { reason: expect.stringContaining('ENOENT') },
    'systemd cannot be told anything; is systemd-notify there?',
  ]);
});
