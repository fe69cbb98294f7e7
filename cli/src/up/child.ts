import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { CliError, EXIT } from '../failure.ts';
import { MAINS } from './mains.ts';

const END_WITH_PARENT = fileURLToPath(new URL('./end-with-parent.ts', import.meta.url));

export interface ChildOptions {
  name: keyof typeof MAINS;
  flags: readonly string[];
  environment: NodeJS.ProcessEnv;
  /** A JSON line of its log, or text for people. */
  onLine: (line: string, name: keyof typeof MAINS) => void;
}

/** How a process ended, for people. */
export type Ending = { code: number | null; text: string };

/** A process of `harrier up`. It ends with this one, whatever ends this one. */
export class Child {
  readonly name: keyof typeof MAINS;
  readonly ended: Promise<Ending>;
  readonly #process: ChildProcess;
  readonly #firstLine: Promise<string>;
  #running = true;

  constructor(options: ChildOptions) {
    this.name = options.name;
    this.#process = spawn(process.execPath, ['--import', END_WITH_PARENT, MAINS[options.name], ...options.flags], {
      env: options.environment,
      stdio: ['pipe', 'pipe', 'pipe'],
      // Out of reach of the terminal's Ctrl-C: this process says when each of them stops.
      detached: true,
    });
    const { stdout, stderr, stdin } = this.#process;
    stdin?.on('error', () => {});
    if (stderr !== null) createInterface({ input: stderr }).on('line', (line) => options.onLine(line, options.name));
    const firstLine = Promise.withResolvers<string>();
    this.#firstLine = firstLine.promise;
    // What the control plane says when it is ready is for this process; an agent writes its log there.
    let isNews = options.name === 'server';
    const onStdout = (line: string): void => {
      if (isNews) firstLine.resolve(line);
      else options.onLine(line, options.name);
      isNews = false;
    };
    if (stdout !== null) createInterface({ input: stdout }).on('line', onStdout);
    this.ended = new Promise((resolve) => {
      this.#process.once('error', (error) => resolve({ code: null, text: `could not be started: ${error.message}` }));
      // Not `exit`: by `close` its last words have been read.
      this.#process.once('close', (code, signal) =>
        resolve({ code, text: signal === null ? `ended with code ${code}` : `was ended by ${signal}` }),
      );
    });
    void this.ended.then(() => {
      this.#running = false;
    });
  }

  /** The one line that it writes when it is ready. @throws CliError when it ends first */
  async ready(): Promise<string> {
    return await this.orEnd(() => this.#firstLine);
  }

  /** What is waited for, unless the process ends before; then the signal aborts the wait. @throws CliError */
  async orEnd<T>(wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const waiting = new AbortController();
    const ending = this.ended.then(({ text }) => {
      waiting.abort();
      throw new CliError(`the ${TITLES[this.name]} ${text}`, EXIT.failed);
    });
    return await Promise.race([ending, wait(waiting.signal)]);
  }

  /** Asks it to stop; a second time, to stop what it runs at once. */
  ask(): void {
    if (this.#running) this.#process.kill('SIGTERM');
  }

  kill(): void {
    if (this.#running) this.#process.kill('SIGKILL');
  }
}

export const TITLES = { server: 'control plane', agent: 'agent' } as const;
