import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { type AgentMessage, AssignmentSchema, LogStoredSchema, WelcomeSchema } from '@harrier/shared/gen/link';
import { expect, onTestFinished, test } from 'vitest';
import type { EnvironmentProvider, PreparationEvents, PreparedEnvironment } from '../environment/environment.ts';
import { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { type LauncherFacts, launcherEvents } from '../executor/launcher-events.ts';
import { ProcessExecutor } from '../executor/process-executor.ts';
import { Launcher } from '../launcher/launcher.ts';
import { resolvePython } from '../launcher/python.ts';
import { startLauncher } from '../launcher/start-launcher.ts';
import { NO_GPUS } from '../test-support/no-gpus.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { AttemptTable } from './attempt-table.ts';

const LIMIT = 16n * 1024n * 1024n;
const A = { executionId: 'a', attempt: 1 };

const FACTS: LauncherFacts = {
  onIsolation: () => {},
  onPython: () => {},
  onLoad: () => {},
  onLost: () => {},
  onLauncher: () => {},
  onAttached: () => {},
  onDetached: () => {},
};

/** An environment that is a directory with one file. */
class DirectoryProvider implements EnvironmentProvider {
  readonly kind = 'venv';
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  unavailable(): undefined {}

  prepared(): undefined {}

  async prepare(_request: unknown, events: PreparationEvents): Promise<PreparedEnvironment> {
    mkdirSync(this.#directory);
    writeFileSync(join(this.#directory, 'greeting.txt'), 'hello');
    chmodSync(this.#directory, 0o755);
    events.onOutput(Buffer.from('made one file\n'));
    const binds = [{ source: this.#directory, target: '/environment', writable: false }];
    return { start: { key: 'greeting', binds }, release: () => {} };
  }

  resolve(): never {
    throw new Error('there is nothing to resolve');
  }
}

/** What an agent sends, and waiting for it. */
class Sent {
  readonly #messages: AgentMessage['message'][] = [];
  #wake = Promise.withResolvers<void>();

  add({ message }: AgentMessage): void {
    this.#messages.push(message);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  /** The next message; a log as `stream offset text`, anything else as its kind. */
  async next(): Promise<{ line: string; message: AgentMessage['message'] }> {
    for (;;) {
      const wake = this.#wake.promise;
      const message = this.#messages.shift();
      if (message?.case === 'log') {
        const { stream, offset, data } = message.value;
        return { line: `log ${stream} ${offset} ${Buffer.from(data)}`, message };
      }
      if (message !== undefined) return { line: message.case ?? '', message };
      await wake;
    }
  }
}

const CODE = `
import sys
def handler(input):
    with open("/environment/greeting.txt") as file:
        greeting = file.read()
    print("from the code", file=sys.stderr)
    return {"greeting": greeting}
`;

test('code runs in what was prepared, behind what the preparation wrote', async () => {
  const dataDir = tempDir();
  const socketPath = join(dataDir, 'launcher.sock');
  const sent = new Sent();
  const environments = new EnvironmentRegistry(() => {});
  environments.add(new DirectoryProvider(join(dataDir, 'environment')));
  const table = new AttemptTable({
    environments,
    slots: 1,
    caps: { cpu: 4, memoryBytes: Number(64n * LIMIT), tmpBytes: Number(LIMIT), network: 'none' },
    gpus: NO_GPUS,
    send: (message) => sent.add(message),
    onFinished: () => {},
    onEnvironmentPrepared: () => {},
    onQuiet: () => {},
    onForgotten: () => {},
    logger: silentLogger(),
  });
  const { path: python } = await resolvePython('python3');
  const launcher = new Launcher({
    socketPath,
    start: () =>
      startLauncher({
        python,
        jobPython: undefined,
        dataDir,
        socketPath,
        allowUnsandboxed: false,
        spoolBytes: undefined,
      }),
    events: launcherEvents(() => processes, table, FACTS),
    logger: silentLogger(),
  });
  onTestFinished(async () => {
    await launcher.stop(0);
    launcher.close();
  });
  const processes = new ProcessExecutor(launcher, [], () => undefined);
  table.addExecutor(processes);
  await launcher.open();
  table.linkUp(create(WelcomeSchema));
  table.assign(
    create(AssignmentSchema, {
      ref: A,
      tenant: 'acme',
      program: { case: 'python', value: { source: CODE, handler: 'handler', filename: 'test.py' } },
      inputJson: Buffer.from('{}'),
      timeout: { seconds: 60n },
      limits: {
        memoryBytes: 32n * LIMIT,
        stdoutBytes: LIMIT,
        stderrBytes: LIMIT,
        outputBytes: 8_323_072n,
        tmpBytes: LIMIT,
      },
      environment: { kind: { case: 'venv', value: {} } },
    }),
  );
  const lines: string[] = [];
  let fromCode = '';
  for (;;) {
    const { line, message } = await sent.next();
    // What is printed together may come in pieces.
    if (message.case === 'log' && lines.at(-1) === 'started') fromCode += Buffer.from(message.value.data);
    else lines.push(line);
    if (message.case !== 'result') continue;
    expect(message.value).toMatchObject({ state: State.SUCCEEDED, stderrBytes: 28n });
    expect(Buffer.from(message.value.outputJson).toString()).toBe('{"greeting":"hello"}');
    break;
  }
  expect(lines).toEqual(['preparing', 'log 2 0 made one file\n', 'started', 'result']);
  expect(fromCode).toBe('from the code\n');

  // A control plane that has lost what it had not stored gets the preparation's bytes from the launcher.
  table.linkDown();
  const resume = [create(LogStoredSchema, { ref: A, stderrOffset: 5n })];
  table.linkUp(create(WelcomeSchema, { resume }));
  let stderr = '';
  for (;;) {
    const { message } = await sent.next();
    if (message.case === 'result') break;
    if (message.case === 'log') stderr += Buffer.from(message.value.data).toString();
  }
  expect(stderr).toBe('one file\nfrom the code\n');
});
