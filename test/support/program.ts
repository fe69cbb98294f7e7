import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { listProcesses, type ProcessInfo, processTree } from './processes.ts';
import { DEADLINE_MS, until, within } from './wait.ts';

export interface ProgramOptions {
  argv: readonly [string, ...string[]];
  env: Record<string, string>;
  cwd?: string;
  uid?: number;
  gid?: number;
  /**
   * File for its standard error, in the place of a pipe: a pipe is full while this process waits for something else, and a program
   * that waits for room in it answers nobody.
   */
  stderrFile?: string;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A process that a test has started, with everything that it wrote. */
export class Program {
  readonly exited: Promise<Exit>;
  stdout = '';
  readonly #stderrFile: string | undefined;
  #stderr = '';
  readonly #child: ChildProcess;
  #running = true;

  constructor({ argv: [file, ...args], stderrFile, ...options }: ProgramOptions) {
    this.#stderrFile = stderrFile;
    const stderr = stderrFile === undefined ? 'pipe' : openSync(stderrFile, 'a', 0o600);
    this.#child = spawn(file, args, { ...options, stdio: ['ignore', 'pipe', stderr] });
    if (typeof stderr === 'number') closeSync(stderr);
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    this.exited = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', (code, signal) => {
        this.#running = false;
        this.#drained().then(() => resolve({ code, signal }), reject);
      });
    });
    this.exited.catch(() => {});
  }

  /**
   * What it wrote before its end lies in its pipes, and may be read later than the end is told. Not until they are closed: what it has
   * started and left may have them too.
   */
  async #drained(): Promise<void> {
    const length = () => this.stdout.length + this.#stderr.length;
    let before: number;
    do {
      before = length();
      // In the first turn of the loop they are asked, in the second they have answered.
      await setImmediate();
      await setImmediate();
    } while (length() !== before);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get stderr(): string {
    return this.#stderrFile === undefined ? this.#stderr : readFileSync(this.#stderrFile, 'utf8');
  }

  get running(): boolean {
    return this.#running;
  }

  /** All that it wrote, standard output first. */
  get output(): string {
    return `${this.stdout}\n${this.stderr}`;
  }

  /** The lines that are JSON: what pino logged. */
  get logs(): Record<string, unknown>[] {
    return this.output
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Everything that it has started and that still runs, itself included. */
  tree(): ProcessInfo[] {
    return processTree(this.pid);
  }

  /** Waits for the first whole line on standard output. */
  async firstLine(): Promise<string> {
    return await until('the first line of the program', () => {
      const end = this.stdout.indexOf('\n');
      if (end >= 0) return this.stdout.slice(0, end);
      if (!this.#running) throw new Error(`the program ended before its first line:\n${this.stderr.slice(-4000)}`);
      return undefined;
    });
  }

  /** Asks it to stop, and answers how it ended. It is killed, with an error, when it does not. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', deadlineMs = DEADLINE_MS): Promise<Exit> {
    this.signal(signal);
    try {
      return await within(`the end of process ${this.pid} after ${signal}`, this.exited, deadlineMs);
    } catch (error) {
      this.signal('SIGKILL');
      throw new Error(`${String(error)}\n${this.stderr.slice(-4000)}`);
    }
  }
}

/** Runs a program to its end. */
export async function runProgram(
  options: ProgramOptions & { deadlineMs?: number },
): Promise<Exit & { stdout: string; stderr: string }> {
  const program = new Program(options);
  try {
    const exit = await within(`the end of ${options.argv.join(' ')}`, program.exited, options.deadlineMs);
    return { ...exit, stdout: program.stdout, stderr: program.stderr };
  } finally {
    if (program.running) program.signal('SIGKILL');
  }
}

/** Waits until none of the processes runs; those that do not end are named. */
export async function untilGone(processes: readonly ProcessInfo[]): Promise<void> {
  const left = () => {
    const now = new Map(listProcesses().map((info) => [info.pid, info]));
    return processes.filter(({ pid, startTicks }) => now.get(pid)?.startTicks === startTicks);
  };
  await until('processes to end', () => left().length === 0, {
    seen: () => left().map(({ pid, command }) => `${pid} ${command.slice(0, 200)}`),
  });
}
