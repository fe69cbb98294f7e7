import { writeFileSync } from 'node:fs';
import { hostname, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ConfigError, defaultMaxTmpBytes, readConfig } from './config.ts';
import { tempDir } from './test-support/temp-dir.ts';

const SERVER = { HARRIER_SERVER_URL: 'http://127.0.0.1:8000' };

function problemsOf(environment: Record<string, string>): readonly string[] {
  try {
    readConfig({}, environment);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('settings', () => {
  test('have defaults for everything but the server', () => {
    const config = readConfig({}, { ...SERVER });
    expect(config).toMatchObject({
      linkUrls: ['ws://127.0.0.1:8000/agent/v1/link'],
      dataDir: resolve('.harrier/agent'),
      name: hostname(),
      labels: {},
      metricsListen: { host: '127.0.0.1', port: 9465 },
      allowUnsandboxed: false,
      stopGraceMs: 30_000,
      stopLauncher: false,
      startLauncher: true,
      maxMemoryBytes: totalmem(),
      maxTmpBytes: defaultMaxTmpBytes(totalmem()),
      maxNetwork: 'egress',
      indexUrl: 'https://pypi.org/simple',
    });
    expect(config.slots % 32).toBe(0);
  });

  test('/tmp takes half the memory of a host at most, and never more than 64 GiB', () => {
    expect(defaultMaxTmpBytes(1001)).toBe(500);
    expect(defaultMaxTmpBytes(2 ** 40)).toBe(64 * 2 ** 30);
  });

  test.each([
    ['https://harrier.example', 'wss://harrier.example/agent/v1/link'],
    ['https://example.org:8443/harrier/', 'wss://example.org:8443/harrier/agent/v1/link'],
    ['http://[::1]:8000', 'ws://[::1]:8000/agent/v1/link'],
    ['http://a:1, https://b:2,', 'ws://a:1/agent/v1/link wss://b:2/agent/v1/link'],
  ])('server %s has its link at %s', (server, link) => {
    expect(readConfig({}, { HARRIER_SERVER_URL: server }).linkUrls).toEqual(link.split(' '));
  });

  test('a flag stands above its variable, and labels add up', () => {
    const config = readConfig(
      { HARRIER_AGENT_NAME: 'flag', HARRIER_AGENT_LABELS: 'zone=us,spot=', HARRIER_AGENT_SLOTS: undefined },
      { ...SERVER, HARRIER_AGENT_NAME: 'variable', HARRIER_AGENT_LABELS: 'zone=eu,gpu=h200', HARRIER_AGENT_SLOTS: '7' },
    );
    expect(config).toMatchObject({ name: 'flag', labels: { zone: 'us', gpu: 'h200', spot: '' }, slots: 7 });
  });

  test('the join token leaves the environment, and can come from a file', () => {
    const environment: Record<string, string> = { ...SERVER, HARRIER_JOIN_TOKEN: 'secret' };
    expect(readConfig({}, environment).joinToken).toBe('secret');
    expect(environment).not.toHaveProperty('HARRIER_JOIN_TOKEN');
    const file = join(tempDir(), 'token');
    writeFileSync(file, 'from a file\n');
    expect(readConfig({ HARRIER_JOIN_TOKEN_FILE: file }, { ...SERVER }).joinToken).toBe('from a file');
  });

  test('all problems are told at once, with the names of the settings', () => {
    const problems = problemsOf({
      HARRIER_SERVER_URL: 'ftp://user:password@host',
      HARRIER_AGENT_SLOTS: '0',
      HARRIER_AGENT_LABELS: 'no label',
      HARRIER_AGENT_METRICS_LISTEN: 'nowhere',
      HARRIER_LOG_LEVEL: 'loud',
      HARRIER_ALLOW_UNSANDBOXED: 'perhaps',
      HARRIER_SPOOL_BYTES: '1',
      HARRIER_AGENT_MAX_MEMORY_BYTES: '1G',
      HARRIER_AGENT_MAX_TMP_BYTES: '0',
      HARRIER_AGENT_MAX_NETWORK: 'some',
      HARRIER_AGENT_INDEX_URL: 'file://user:password@host/',
      HARRIER_JOIN_TOKEN_FILE: '/does/not/exist',
      HARRIER_AGENT_DATA_DIR: `/${'long/'.repeat(30)}`,
      HARRIER_AGENT_STOP_GRACE_S: '-1',
    });
    for (const name of [
      'HARRIER_SERVER_URL',
      'HARRIER_AGENT_SLOTS',
      'HARRIER_AGENT_LABELS',
      'HARRIER_AGENT_METRICS_LISTEN',
      'HARRIER_LOG_LEVEL',
      'HARRIER_ALLOW_UNSANDBOXED',
      'HARRIER_SPOOL_BYTES',
      'HARRIER_AGENT_MAX_MEMORY_BYTES',
      'HARRIER_AGENT_MAX_TMP_BYTES',
      'HARRIER_AGENT_MAX_NETWORK',
      'HARRIER_AGENT_INDEX_URL',
      'HARRIER_JOIN_TOKEN_FILE',
      'HARRIER_AGENT_DATA_DIR',
      'HARRIER_AGENT_STOP_GRACE_S',
    ]) {
      expect(problems.filter((problem) => problem.startsWith(name))).toHaveLength(1);
    }
    expect(problems.join()).not.toContain('password');
  });

  test('a token that is given for its file, and a key in an address, are not told', () => {
    const token = `hj_${'x'.repeat(43)}`;
    const problems = problemsOf({ HARRIER_SERVER_URL: 'http://host?key=hidden', HARRIER_JOIN_TOKEN_FILE: token });
    expect(problems).toEqual([
      'HARRIER_SERVER_URL must be http(s)://HOST[:PORT], not "http://host"',
      'HARRIER_JOIN_TOKEN_FILE cannot be read: it must name a file, and is a token itself',
    ]);
  });

  test('without a server the message says what to set', () => {
    expect(problemsOf({})).toEqual([expect.stringContaining('HARRIER_SERVER_URL is missing')]);
  });
});
