import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

/** Everything but the last line, which does what the arguments say. */
const DEFINITIONS = readFileSync(new URL('install.sh', import.meta.url), 'utf8')
  .trimEnd()
  .split('\n')
  .slice(0, -1)
  .join('\n');

const QUESTIONS = {
  packages: `has() { [ "$1" = apt-get ]; }\nmissing_packages() { echo bubblewrap; }\nensure_packages no\n`,
  token: `read_token ''\necho "token: $TOKEN"\n`,
};

/** Runs one of the installer's own functions. */
function call(name: string, argument: string): { status: number | null; stderr: string } {
  const { status, stderr } = spawnSync('sh', ['-s', '--', argument], {
    input: `${DEFINITIONS}\n${name} "$1"\n`,
    encoding: 'utf8',
  });
  return { status, stderr };
}

test.each([
  ['check_url', 'http://[::1]:8000'],
  ['check_url', 'https://harrier.example/runs,https://10.0.0.2:8443'],
  ['check_token', 'hj_abc-_DEF012'],
  ['check_version', '0.1.0-rc.1'],
  ['check_seconds', '120'],
  ['check_setting', 'HARRIER_AGENT_LABELS=zone=eu,gpu=h200'],
  ['check_setting', 'NODE_EXTRA_CA_CERTS=/etc/harrier/ca.crt'],
])('%s takes %s', (name, argument) => {
  expect(call(name, argument)).toEqual({ status: 0, stderr: '' });
});

test.each([
  ['check_url', "http://a';reboot", 'characters that do not belong there'],
  ['check_url', 'http://a$(reboot)', 'characters that do not belong there'],
  ['check_url', 'http://a\nHARRIER_ALLOW_UNSANDBOXED=true', 'characters that do not belong there'],
  ['check_url', 'ftp://a', 'must be http(s)://HOST[:PORT]'],
  ['check_token', '', 'is not a join token'],
  ['check_token', 'hj_a"b', 'is not a join token'],
  ['check_version', '../../etc', 'is not a version'],
  ['check_version', '1;reboot', 'is not a version'],
  ['check_seconds', '5s', 'takes seconds'],
  ['check_setting', 'HARRIER_JOIN_TOKEN=hj_x', 'can be seen by other users'],
  ['check_setting', 'LD_PRELOAD=/tmp/x.so', 'a setting of the agent'],
  ['check_setting', 'HARRIER_A B=c', 'is not the name of a setting'],
  ['check_setting', 'HARRIER_A="x"', 'must not have quotes'],
  ['check_setting', 'HARRIER_A=x\nLD_PRELOAD=y', 'several lines'],
])('%s refuses %j', (name, argument, reason) => {
  expect(call(name, argument)).toEqual({ status: 1, stderr: expect.stringContaining(reason) });
});

test.each([
  [
    'packages are missing',
    QUESTIONS.packages,
    'missing: bubblewrap (install with: apt-get install -y --no-install-recommends bubblewrap ; or run this with --yes)',
  ],
  ['there is no token', QUESTIONS.token, 'a join token is needed'],
])('without a terminal the installer says that %s, and ends', (_, question, reason) => {
  const { status, stdout, stderr } = spawnSync('setsid', ['--wait', 'sh', '-s'], {
    input: `${DEFINITIONS}\n${question}`,
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  });
  expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: '', stderr: expect.stringContaining(reason) });
});

test.each([
  ['packages', QUESTIONS.packages, 'n', 1, 'missing: bubblewrap - install with "apt-get install'],
  ['the token', QUESTIONS.token, 'hj_abc', 0, 'Join token (harrier agents token): '],
])('with a terminal the installer asks for %s', (_, question, answer, code, asked) => {
  const { status, stdout } = spawnSync('script', ['--quiet', '--return', '--command', 'sh -c "$SCRIPT"', '/dev/null'], {
    input: `${answer}\n`,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, SHELL: '/bin/sh', SCRIPT: `${DEFINITIONS}\n${question}` },
  });
  expect(stdout).toContain(asked);
  if (code === 0) expect(stdout).toContain(`token: ${answer}`);
  expect(status).toBe(code);
});
