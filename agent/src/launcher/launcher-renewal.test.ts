import { expect, test, vi } from 'vitest';
import { silentLogger } from '../test-support/silent-logger.ts';
import { LauncherRenewal } from './launcher-renewal.ts';

function setUp(build: string) {
  const launcher = { build, startedHere: false, replace: vi.fn() };
  const host = { idle: true };
  const error = vi.fn();
  const logger = { ...silentLogger(), info: vi.fn(), error } as never;
  const renewal = new LauncherRenewal({ launcher, build: 'new', isIdle: () => host.idle, logger });
  return { launcher, host, renewal, error };
}

test('a launcher of another build is replaced in its first idle moment', () => {
  const { launcher, host, renewal } = setUp('old');
  host.idle = false;
  renewal.notice();
  expect(launcher.replace).not.toHaveBeenCalled();
  host.idle = true;
  renewal.notice();
  expect(launcher.replace).toHaveBeenCalledTimes(1);
});

test('a service that starts the replaced launcher again is told of once, and not asked again and again', () => {
  const { launcher, renewal, error } = setUp('old');
  renewal.notice();
  renewal.notice();
  renewal.notice();
  expect(launcher.replace).toHaveBeenCalledTimes(1);
  expect(error).toHaveBeenCalledTimes(1);
  expect(renewal.outdated).toBe(true);
});

test('a launcher of a third build is replaced, too', () => {
  const { launcher, renewal } = setUp('old');
  renewal.notice();
  launcher.build = 'older';
  renewal.notice();
  expect(launcher.replace).toHaveBeenCalledTimes(2);
});
