import { type ChildProcess, spawn } from 'node:child_process';
import { HarrierError, type Logger, messageOf } from '@harrier/shared';

const STOP_DEADLINE_MS = 20_000;
/** More ends than this within the window are no accident any more. */
const MAX_RESTARTS = 5;
const RESTART_WINDOW_MS = 60_000;
/** What an ended server has left (its other processes, its shared memory) may take a moment to go. */
const START_AGAIN_MS = 250;
const MAX_STARTS = 40;

export interface PostgresServerOptions {
  file: string;
  args: readonly string[];
  owner: { uid: number; gid: number } | undefined;
  cwd: string;
  env: Record<string, string>;
  logger: Logger;
  /** It ended too often, or cannot be started again. */
  onLost: (reason: string) => void;
}

/** One server process, started again when it ends without having been asked to. */
export class PostgresServer {
  readonly #options: PostgresServerOptions;
  #child: ChildProcess | undefined;
  #ended: Promise<string> = Promise.resolve('');
  #stopping = false;
  readonly #endsMs: number[] = [];
  #restarting: Promise<void> = Promise.resolve();

  constructor(options: PostgresServerOptions) {
    this.#options = options;
  }

  /** Resolves when it accepts connections. @throws HarrierError internal */
  async start(): Promise<void> {
    const { file, args, owner, cwd, env, logger } = this.#options;
    const child = spawn(file, args, {
      ...owner,
      cwd,
      stdio: ['ignore', 'ignore', 'pipe'],
      env,
      // Ctrl-C goes to the terminal's whole process group; the control plane still needs its database to finish.
      detached: true,
    });
    const ended = new Promise<string>((done) => {
      child.once('error', (error) => done(messageOf(error)));
      child.once('exit', (code, signal) => done(`exit code ${code ?? 'none'}, signal ${signal ?? 'none'}`));
    });
    this.#child = child;
    this.#ended = ended;
    await readiness(child, ended, logger);
    void ended.then((reason) => {
      if (!this.#stopping) this.#restarting = this.#restart(reason);
    });
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#restarting;
    // SIGINT is PostgreSQL's fast shutdown: open transactions are rolled back, a checkpoint is written.
    this.#child?.kill('SIGINT');
    const killer = setTimeout(() => this.#child?.kill('SIGQUIT'), STOP_DEADLINE_MS);
    await this.#ended;
    clearTimeout(killer);
  }

  async #restart(reason: string): Promise<void> {
    const { logger, onLost } = this.#options;
    const nowMs = performance.now();
    this.#endsMs.push(nowMs);
    while ((this.#endsMs[0] ?? nowMs) < nowMs - RESTART_WINDOW_MS) this.#endsMs.shift();
    const ends = this.#endsMs.length;
    if (ends > MAX_RESTARTS) return onLost(`the embedded PostgreSQL ended ${ends} times in a minute: ${reason}`);
    logger.error({ reason }, 'the embedded PostgreSQL ended; starting it again');
    for (let starts = 1; !this.#stopping; starts++) {
      try {
        await this.start();
        logger.info('the embedded PostgreSQL is back');
        return;
      } catch (error) {
        if (starts === MAX_STARTS)
          return onLost(`the embedded PostgreSQL cannot be started again: ${messageOf(error)}`);
        await new Promise((done) => setTimeout(done, START_AGAIN_MS));
      }
    }
  }
}

async function readiness(child: ChildProcess, ended: Promise<string>, logger: Logger): Promise<void> {
  let text = '';
  const ready = new Promise<void>((done) => {
    child.stderr?.on('data', (chunk: Buffer) => {
      const lines = chunk.toString();
      logger.debug({ postgres: lines.trimEnd() }, 'PostgreSQL');
      if (text.length < 16_384) text += lines;
      if (text.includes('ready to accept connections')) done();
    });
  });
  const reason = await Promise.race([ready, ended]);
  if (reason !== undefined) throw new HarrierError('internal', `PostgreSQL did not start (${reason}):\n${text}`);
}
