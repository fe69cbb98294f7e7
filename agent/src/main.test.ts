import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Goodbye_Code } from '@harrier/shared/gen/link';
import { describe, expect, onTestFinished, test } from 'vitest';
import { LinkServer } from './test-support/link-server.ts';
import { tempDir } from './test-support/temp-dir.ts';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

interface Started {
  child: ChildProcess;
  ended: Promise<{ code: number | null; text: string }>;
}

/** Runs the program as an operator does. */
function start(flags: string[], environment: Record<string, string> = {}): Started {
  const env = { PATH: process.env.PATH ?? '', ...environment };
  const child = spawn(process.execPath, [MAIN, ...flags], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let text = '';
  child.stdout.on('data', (data) => {
    text += data;
  });
  child.stderr.on('data', (data) => {
    text += data;
  });
  return { child, ended: once(child, 'close').then(([code]) => ({ code: code as number | null, text })) };
}

describe('the program', () => {
  test('links under its own process number, ends on SIGTERM with code 0, and tells no secret', async () => {
    const server = await LinkServer.start();
    const flags = ['--server-url', server.httpUrl, '--data-dir', tempDir(), '--metrics-listen', '127.0.0.1:0'];
    const { child, ended } = start(
      [...flags, '--stop-launcher', '--name', 'host-a', '--label', 'zone=eu', '--label', 'gpu='],
      {
        HARRIER_JOIN_TOKEN: 'very-secret',
      },
    );
    const side = await server.connection();
    const hello = await side.welcome();
    expect(hello).toMatchObject({ name: 'host-a', labels: { zone: 'eu', gpu: '' }, joinToken: 'very-secret' });
    await side.next('heartbeat');
    child.kill('SIGTERM');
    const { code, text } = await ended;
    expect(code).toBe(0);
    expect(text).toContain(`"pid":${child.pid},`);
    expect(text).not.toContain('very-secret');
  });

  test('writes nothing of what it runs into its logs, however that ends', async () => {
    const secret = 'hunter2-s3cret';
    const source = `def handler(input):\n    print("${secret}")\n    if input["fail"]: raise ValueError("${secret}")\n    return input`;
    const crash = `import os\ndef handler(input):\n    os.write(2, b"${secret}")\n    os._exit(3)`;
    const limits = {
      memoryBytes: 512n << 20n,
      tmpBytes: 1n << 20n,
      stdoutBytes: 5n,
      stderrBytes: 9n,
      outputBytes: 999n,
    };
    const python = (text: string) =>
      ({ case: 'python', value: { source: text, handler: 'handler', filename: 'main.py', reuseKey: '' } }) as const;
    const command = (...argv: string[]) => ({ case: 'command', value: { argv } }) as const;
    const assignments = [
      { program: python(source) },
      { program: python(source), input: { fail: true, secret } },
      { program: python(crash) },
      { program: python(`${source} ${secret}`) },
      { program: python(source), env: { [`NOT=${secret}`]: secret } },
      { program: command('sh', '-c', `echo ${secret}; exit 3`) },
      { program: command(`/${secret}`) },
      { program: command('echo', secret.repeat(100_000)), rejected: true },
      { program: python(source), memoryBytes: 1n << 60n, rejected: true },
    ];
    const server = await LinkServer.start();
    const dataDir = tempDir();
    const flags = ['--server-url', server.httpUrl, '--data-dir', dataDir, '--metrics-listen', '127.0.0.1:0'];
    const { child, ended } = start([...flags, '--stop-launcher', '--log-level', 'trace'], {
      HARRIER_JOIN_TOKEN: secret,
    });
    const side = await server.connection();
    await side.welcome();
    for (const [n, { program, input, env, memoryBytes, rejected }] of assignments.entries()) {
      const ref = { executionId: `e${n}`, attempt: 1 };
      const value = {
        ref,
        tenant: 'acme',
        program,
        inputJson: Buffer.from(JSON.stringify(input ?? { fail: false, secret })),
        limits: { ...limits, ...(memoryBytes && { memoryBytes }) },
        env: { TOKEN: secret, ...env },
        environment: { kind: { case: 'inline', value: {} } },
      } as const;
      side.send({ case: 'assignment', value });
      if (rejected) expect(await side.next('rejected')).toMatchObject({ ref });
      else expect((await side.collect()).result.ref).toMatchObject(ref);
    }
    child.kill('SIGTERM');
    const { code, text } = await ended;
    expect(code).toBe(0);
    expect(text).toContain('attempt rejected');
    for (const written of [text, readFileSync(join(dataDir, 'launcher.log'), 'utf8')]) {
      expect(written).not.toBe('');
      expect(written).not.toContain(secret);
    }
  });

  test('ends with code 77 and the reason when the control plane does not want it', async () => {
    const server = await LinkServer.start();
    const flags = ['--server-url', server.httpUrl, '--data-dir', tempDir(), '--metrics-listen', '127.0.0.1:0'];
    const { ended } = start([...flags, '--stop-launcher'], { HARRIER_JOIN_TOKEN: 'used' });
    const side = await server.connection();
    side.send({ case: 'challenge', value: { nonce: side.nonce } });
    await side.next('hello');
    side.send({ case: 'goodbye', value: { code: Goodbye_Code.REFUSED, message: 'the join token was used before' } });
    const { code, text } = await ended;
    expect(code).toBe(77);
    expect(text).toContain('harrier agent: the control plane refused this agent: the join token was used before\n');
  });

  test('ends with code 78 and every problem when the settings are wrong', async () => {
    const flags = ['--slots', 'many', '--max-memory-bytes', '1G', '--max-tmp-bytes', '-1'];
    const { code, text } = await start([...flags, '--data-dir', join(tempDir(), 'x'.repeat(200))]).ended;
    expect(code).toBe(78);
    expect(text).toContain('HARRIER_SERVER_URL is missing');
    expect(text).toContain('HARRIER_AGENT_SLOTS must be a whole number');
    expect(text).toContain('HARRIER_AGENT_MAX_MEMORY_BYTES must be a whole number');
    expect(text).toContain('HARRIER_AGENT_MAX_TMP_BYTES must be a whole number');
    expect(text).toContain('HARRIER_AGENT_DATA_DIR is too long');
  });

  test.each([['--label', 'nokey'], ['--no-such-flag'], ['argument']])(
    'ends with code 78 on %s %s',
    async (...flags) => {
      expect((await start(flags.filter(Boolean)).ended).code).toBe(78);
    },
  );

  test('explains its flags', async () => {
    const { code, text } = await start(['--help']).ended;
    expect(code).toBe(0);
    expect(text).toContain('--server-url <url>');
  });
});
