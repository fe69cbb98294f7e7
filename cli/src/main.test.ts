import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const BIN = fileURLToPath(new URL('../bin/harrier.mjs', import.meta.url));
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'harrier-cli-'));
});

afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

function harrier(args: string[], environment: Record<string, string> = {}) {
  const { PATH = '', HOME = '' } = process.env;
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...args], {
    cwd: directory,
    env: { PATH, HOME, XDG_CACHE_HOME: tmpdir(), ...environment },
    encoding: 'utf8',
    input: '',
  });
  return { status, stdout, stderr };
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('harrier', () => {
  it('prints help with the exit codes', () => {
    const { status, stdout } = harrier(['--help']);
    expect(status).toBe(0);
    expect(stdout).toContain('124  it timed out');
  });

  it.each([
    [['nonsense'], /unknown command 'nonsense'/],
    [['run'], /missing required argument 'module'/],
    [['run', 'm', '--timeout', 'soon'], /Write a duration like/],
    [['exec'], /give either FILE or -c CODE/],
    [['exec', '--command'], /no command is given/],
    [['exec', '--command', '--language', 'go', 'ls'], /--command does not go with --language/],
    [['exec', '--language', 'cobol', 'x'], /Allowed choices are python, nodejs, go/],
    [['exec', 'gone.py'], /gone\.py cannot be read: ENOENT/],
    [['run', 'm', '-i', '{'], /the input \(--input\) is not JSON/],
    [['run', 'm', '-i', '@gone.json'], /gone\.json cannot be read/],
    [['modules', 'push', 'm.py'], /give m\.py a version/],
    [['modules', 'push', 'm.yaml'], /m\.yaml: cannot be read/],
    [['schedules', 'create', 's', '--module', 'm'], /give one of --cron, --every and --at/],
    [
      ['schedules', 'create', 's', '--every', '5m', '--time-zone', 'UTC', '--module', 'm'],
      /--time-zone goes with --cron/,
    ],
    [['schedules', 'create', 's', '--every', '5m'], /give one of --module and --workflow/],
    [['schedules', 'create', 's', '--at', '2030-01-31 08:00', '--module', 'm'], /Write a time with its zone/],
    [['executions', 'ls', '--state', 'LOST'], /Allowed choices are PENDING/],
    [['agents', 'ls', '--server', 'ftp://host'], /must be http\(s\):\/\/HOST/],
    [['agents', 'ls', '--server', 'http://me:word@host'], /must be http\(s\):\/\/HOST\[:PORT\], not "http:\/\/…@host"/],
    [
      ['agents', 'ls', '--key-file', `hk_${'x'.repeat(43)}`],
      /^harrier: --key-file must name a file, and is a key itself\n$/,
    ],
  ])('refuses %j with 2 and a message without a stack', (args, message) => {
    const { status, stderr, stdout } = harrier(args, { HARRIER_API_KEY: 'hk_x' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });

  it('says where a key may come from', () => {
    const { status, stderr } = harrier(['agents', 'ls']);
    expect(stderr).toMatch(/there is no API key: .*\.harrier\/admin\.key does not exist\nset HARRIER_API_KEY/);
    expect(status).toBe(2);
  });

  it('says that nobody answers', async () => {
    writeFileSync(join(directory, 'key'), 'hk_x\n');
    const server = `http://127.0.0.1:${await freePort()}`;
    const { status, stderr } = harrier(['agents', 'ls', '--key-file', 'key', '--server', server]);
    expect(stderr).toBe(
      `harrier: no answer from the control plane at ${server}: the connection was refused\nstart one with \`harrier up\`, or name another with --server\n`,
    );
    expect(status).toBe(3);
  });

  it('does not start without a sandbox unless it is allowed', () => {
    const { status, stderr } = harrier(['up'], { PATH: directory });
    expect(stderr).toMatch(/bwrap.*not on PATH[\s\S]*apt-get install bubblewrap[\s\S]*--allow-unsandboxed/);
    expect(status).toBe(1);
  });

  it('passes flags on to the processes', () => {
    expect(harrier(['server', '--help']).stdout).toMatch(/--grpc-port/);
    expect(harrier(['agent', '--help']).stdout).toMatch(/--join-token-file/);
    expect(harrier(['server', '--listen', 'nowhere']).stderr).toMatch(/HARRIER_LISTEN must be HOST:PORT/);
  });
});
