import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished, vi } from 'vitest';
import { Launcher, type LauncherEvents, type LauncherOptions } from '../launcher/launcher.ts';
import type { StartMessage, WelcomeMessage } from '../launcher/messages.ts';
import { resolvePython } from '../launcher/python.ts';
import { startLauncher } from '../launcher/start-launcher.ts';
import { silentLogger } from './silent-logger.ts';
import { openTempDir } from './temp-dir.ts';

/** Everything that a launcher said, as text, with the bodies appended: `finished e1/1 succeeded {"x":1}`. */
export class LauncherRecord {
  readonly lines: string[] = [];
  readonly welcomes: WelcomeMessage[] = [];
  #wake = Promise.withResolvers<void>();

  readonly events: LauncherEvents = {
    onWelcome: (welcome) => {
      this.welcomes.push(welcome);
      this.#add(
        `welcome ${welcome.attempts.map((held) => `${held.execution}/${held.attempt} ${held.state}`).join(', ')}`,
      );
    },
    onLost: () => this.#add('lost'),
    onStarted: (execution, attempt) => this.#add(`started ${execution}/${attempt}`),
    onOutput: (execution, attempt, stream, offset, data) => {
      this.#add(`${stream} ${execution}/${attempt} ${offset} ${Buffer.from(data)}`);
    },
    onProgress: (execution, attempt, percent, step) => this.#add(`progress ${execution}/${attempt} ${percent} ${step}`),
    onFinished: ({ execution, attempt, outcome, error, exit_code }, result) => {
      const detail = error === null ? Buffer.from(result).toString() : error.code;
      this.#add(
        `finished ${execution}/${attempt} ${outcome} ${detail}${exit_code === null ? '' : ` exit ${exit_code}`}`,
      );
    },
    onLoad: vi.fn(),
    onAttached: (tenant, key) => this.#add(`attached ${tenant} ${key}`),
    onDetached: (tenant, key, reason) => this.#add(`detached ${tenant} ${key} ${reason}`),
  };

  /** Waits for a line that starts so, takes it and all before it, and answers it. */
  async until(start: string): Promise<string> {
    for (;;) {
      const wake = this.#wake.promise;
      const position = this.lines.findIndex((line) => line.startsWith(start));
      if (position >= 0) return this.lines.splice(0, position + 1).at(-1) ?? '';
      await wake;
    }
  }

  #add(line: string): void {
    this.lines.push(line);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}

/** A connection to the launcher of a directory, which is started if need be. Closed after the test; see `stopAfterTest`. */
export function connectLauncher(
  directory: string,
  lease?: LauncherOptions['lease'],
): { launcher: Launcher; record: LauncherRecord } {
  const record = new LauncherRecord();
  const socketPath = join(directory, 'launcher.sock');
  const launcher = new Launcher({
    socketPath,
    start: async () => {
      const { path } = await resolvePython('python3');
      await startLauncher({
        python: path,
        jobPython: undefined,
        dataDir: directory,
        socketPath,
        allowUnsandboxed: false,
        spoolBytes: undefined,
      });
    },
    ...(lease === undefined ? {} : { lease }),
    events: record.events,
    logger: silentLogger(),
  });
  onTestFinished(() => launcher.close());
  return { launcher, record };
}

/**
 * Starts the launcher of another build on the data directory of an agent, as a former agent would have left it.
 * @param change what is different in its files: texts by file and what they were before
 */
export async function startOldLauncher(
  dataDir: string,
  change: Readonly<Record<string, readonly [string, string]>> = {},
): Promise<void> {
  const runtime = openTempDir();
  cpSync(fileURLToPath(new URL('../../runtime/', import.meta.url)), runtime, { recursive: true });
  for (const [name, [before, after]] of Object.entries(change)) {
    const text = readFileSync(join(runtime, name), 'utf8');
    if (!text.includes(before)) throw new Error(`${name} does not contain "${before}"`);
    writeFileSync(join(runtime, name), text.replace(before, after));
  }
  const { path } = await resolvePython('python3');
  const flags = ['--socket', join(dataDir, 'launcher.sock'), '--spool', join(dataDir, 'spool')];
  execFileSync(path, ['-I', '-S', join(runtime, 'launcher.py'), ...flags, '--log', join(dataDir, 'launcher.log')]);
}

/** The launcher, and whatever it runs, is gone after the test. */
export function stopAfterTest(launcher: Launcher): void {
  onTestFinished(() => launcher.stop(0));
}

/** A call of `handler` with `{}` as input, or a command. */
export function call(
  execution: string,
  program: { code: string } | { argv: string[] },
): [StartMessage, ...Uint8Array[]] {
  const input = Buffer.from('{}');
  const limit = 16 * 1024 * 1024;
  const common = {
    type: 'start',
    execution,
    attempt: 1,
    tenant: 'acme',
    input_bytes: input.length,
    env: {},
    timeout_ms: 60_000,
    grace_ms: 100,
    reuse_key: null,
    limits: {
      memory_bytes: 512 * 1024 * 1024,
      cpu: 0,
      stdout_bytes: limit,
      stderr_bytes: limit,
      result_bytes: limit,
      tmp_bytes: limit,
      processes: 64,
    },
    context: { execution_id: execution, attempt: 1, tenant: 'acme', deadline: null },
  } as const;
  if ('argv' in program) return [{ ...common, kind: 'command', argv: program.argv }, input];
  const code = Buffer.from(program.code);
  return [{ ...common, kind: 'python', handler: 'handler', filename: 'test.py', code_bytes: code.length }, code, input];
}
