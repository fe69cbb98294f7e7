// The command `harrier` as a person uses it: up, then run, exec, logs and the rest against it, then Ctrl-C.
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Program, runProgram, untilGone } from '../support/program.ts';
import { until } from '../support/wait.ts';
import { directory, environment, REPOSITORY } from '../support/workspace.ts';

const COMMAND = [process.execPath, join(REPOSITORY, 'cli/bin/harrier.mjs')] as const;
const ANY_PORTS = [
  '--listen',
  '127.0.0.1:0',
  '--metrics-listen',
  '127.0.0.1:0',
  '--agent-metrics-listen',
  '127.0.0.1:0',
];
let dataDirectory: string;
let modulesFile: string;
let up: Program;
let url: string;

function start(): Program {
  const flags = ['up', '--json', ...ANY_PORTS, '--data-dir', dataDirectory, '--config', modulesFile];
  return new Program({ argv: [...COMMAND, ...flags], env: environment() });
}

async function harrier(...args: string[]) {
  const env = environment({ HARRIER_SERVER_URL: url, HARRIER_DATA_DIR: dataDirectory });
  return await runProgram({ argv: [...COMMAND, ...args], env });
}

async function ready(program: Program): Promise<{ url: string; agentId: string; sandboxed: boolean }> {
  return JSON.parse(await program.firstLine()) as { url: string; agentId: string; sandboxed: boolean };
}

describe('harrier up', () => {
  beforeAll(async () => {
    dataDirectory = directory('up');
    modulesFile = join(directory('modules'), 'modules.yaml');
    cpSync(join(REPOSITORY, 'examples'), join(modulesFile, '..'), { recursive: true });
    up = start();
    url = (await ready(up)).url;
    return async () => {
      const processes = up.tree();
      expect(await up.stop('SIGINT')).toEqual({ code: 0, signal: null });
      await untilGone(processes);
    };
  });

  test('runs a module and prints its result, exactly', async () => {
    expect(await harrier('run', 'hello-world', '-i', '{"name": "Ada"}')).toMatchObject({
      code: 0,
      stdout: '{"message":"Hello, Ada!"}\n',
      stderr: '',
    });
  });

  test('runs a module that is a directory with packages of its own', async () => {
    const ran = await harrier('run', 'data-processor', '-i', '{"values": [3, 1, 2]}', '--follow');
    expect(ran, ran.stderr).toMatchObject({ code: 0, stdout: expect.stringMatching(/rank +value[\s\S]*1 +1/) });
    const again = await harrier('run', 'data-processor', '-i', '{"values": []}');
    expect(again).toMatchObject({ code: 0, stdout: '{"count":0,"sorted":[]}\n' });
    expect((await harrier('modules', 'validate', modulesFile)).stdout).toMatch(
      /data-processor 1\.0\.0: 1 of 1 agents can run it/,
    );
  });

  test('runs a file in the language of its ending, or in the one that is named', async () => {
    const script = join(directory('scripts'), 'double.mjs');
    writeFileSync(script, 'export const handler = ({ n }) => ({ doubled: 2 * n });');
    expect(await harrier('exec', script, '-i', '{"n": 4}')).toMatchObject({ code: 0, stdout: '{"doubled":8}\n' });
    const misnamed = join(directory('scripts'), 'answer.go');
    writeFileSync(misnamed, 'def handler(input): return {"answer": 42}');
    expect((await harrier('exec', misnamed)).stderr).toContain('code.language');
    const named = await harrier('exec', '--language', 'python', misnamed);
    expect(named).toMatchObject({ code: 0, stdout: '{"answer":42}\n' });
  });

  test('shows output as it comes, and again from the log, byte for byte', async () => {
    const code =
      'import sys\ndef handler(input):\n    sys.stdout.buffer.write(b"\\xff\\x00out\\n"); print("err", file=sys.stderr); return {}';
    expect(await harrier('exec', '--follow', '-c', code)).toMatchObject({ code: 0, stderr: 'err\n' });
    const id = (await harrier('executions', 'ls', '-n', '1')).stdout.split('\t')[0] ?? '';
    // `Program` decodes what it reads; the copy that base64 makes is exact.
    const { stdout } = await runProgram({
      argv: ['sh', '-c', `"$0" "$1" logs ${id} --stream stdout | base64`, ...COMMAND],
      env: environment({ HARRIER_SERVER_URL: url, HARRIER_DATA_DIR: dataDirectory }),
    });
    expect(Buffer.from(stdout, 'base64')).toEqual(Buffer.from('\xff\x00out\n', 'latin1'));
  });

  test.each([
    [['exec', '-c', 'def handler(i): raise ValueError("no rows")'], 1, /HANDLER_ERROR: ValueError: no rows\nTraceback/],
    [['exec', '--command', '--', 'sh', '-c', 'echo out; exit 7'], 7, /EXIT_NONZERO/],
    [['run', 'count', '-i', '{"to": 1000}', '--timeout', '1s'], 124, /TIMED_OUT/],
    [['run', 'nobody'], 2, /there is no module "nobody"/],
    [['run', 'describe-numbers', '-i', '{"values": "x"}'], 2, /\/values must be array/],
  ])('%j ends with %d', async (args, code, message) => {
    const exit = await harrier(...args);
    expect(exit.stderr).toMatch(message);
    expect(exit.code).toBe(code);
  });

  test('cancels at Ctrl-C', async () => {
    const program = new Program({
      argv: [...COMMAND, 'run', 'count', '--follow', '-i', '{"to": 10000}'],
      env: environment({ HARRIER_SERVER_URL: url, HARRIER_DATA_DIR: dataDirectory }),
    });
    await program.firstLine();
    expect(await program.stop('SIGINT')).toEqual({ code: 130, signal: null });
    expect(program.stderr).toMatch(/cancelling[\s\S]*CANCELLED/);
  });

  test('answers programs in JSON', async () => {
    const { stdout } = await harrier('run', 'flaky', '--json', '-l', 'team=a');
    expect(JSON.parse(stdout)).toMatchObject({ state: 'SUCCEEDED', attempt: 2, output: { attempts: 2 } });
    const listed = await harrier('executions', 'ls', '--selector', 'team=a', '--json');
    expect(JSON.parse(listed.stdout)).toMatchObject({ executions: [{ module: 'flaky', labels: { team: 'a' } }] });
    const ofTeam = ['executions', 'ls', '--selector', 'team=a'];
    expect((await harrier(...ofTeam, '--since', '1h')).stdout).toContain('flaky');
    expect(await harrier(...ofTeam, '--until', '1h')).toMatchObject({ code: 0, stdout: '' });
    const agents = await harrier('agents', 'ls', '--json');
    expect(JSON.parse(agents.stdout)).toMatchObject({ agents: [{ state: 'ONLINE', isolation: { level: 'SANDBOX' } }] });
  });

  test('takes up a change of the modules file', async () => {
    const text = readFileSync(modulesFile, 'utf8');
    writeFileSync(modulesFile, text.replace('Hello, {name}!', 'Good day, {name}!').replace('"0.1.0"', '"0.2.0"'));
    await until('version 0.2.0', async () => (await harrier('modules', 'ls', 'hello-world')).stdout.includes('0.2.0'));
    expect((await harrier('run', 'hello-world')).stdout).toBe('{"message":"Good day, World!"}\n');
    expect((await harrier('run', 'hello-world', '--version', '0.1.0')).stdout).toBe('{"message":"Hello, World!"}\n');
  });

  test('pushes and removes modules', async () => {
    const file = join(directory('push'), 'my_module.py');
    writeFileSync(file, 'def handler(input):\n    return {"pushed": True}\n');
    expect((await harrier('modules', 'push', file, '--version', '1.0.0')).stdout).toMatch(
      /^my-module 1\.0\.0 is registered/,
    );
    expect((await harrier('run', 'my-module')).stdout).toBe('{"pushed":true}\n');
    expect((await harrier('modules', 'rm', 'my-module')).stdout).toBe('my-module: 1 version removed\n');
    expect((await harrier('run', 'my-module')).code).toBe(2);
  });
});

describe('harrier up, when it is killed', () => {
  let program: Program | undefined;

  afterEach(async () => {
    if (program?.running === true) await program.stop('SIGKILL');
  });

  test('takes everything with it, and comes back as the same agent', async () => {
    program = start();
    const { agentId } = await ready(program);
    const processes = program.tree();
    await program.stop('SIGKILL');
    await untilGone(processes);
    program = start();
    expect((await ready(program)).agentId).toBe(agentId);
    const again = program.tree();
    expect(await program.stop()).toEqual({ code: 0, signal: null });
    await untilGone(again);
  });

  test('does not start when the modules file is wrong, and says where', async () => {
    writeFileSync(modulesFile, 'modules:\n  - name: a\n    env: vent\n');
    program = start();
    expect(await program.exited).toMatchObject({ code: 1 });
    expect(program.stderr).toMatch(/modules\.yaml:3:10: modules\[0\]\.env: there is no environment "vent"/);
    expect(program.stdout).toBe('');
  });
});
