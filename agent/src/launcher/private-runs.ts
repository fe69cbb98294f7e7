import { randomUUID } from 'node:crypto';
import { HarrierError } from '@harrier/shared';
import type { Launcher, LauncherEvents } from './launcher.ts';
import type {
  ExpectedWorker,
  FinishedMessage,
  StartEnvironment,
  StartLimits,
  StartMessage,
  StartNetwork,
} from './messages.ts';

/** Names of private runs start with it; executions of callers are UUIDs. */
const PREFIX = 'private:';
/** What such a run leaves is thrown away; what ignores the first signal would go on filling the disk meanwhile. */
const CANCEL_GRACE_MS = 0;

/** A command that the agent runs for itself, in a sandbox. */
export interface PrivateCommand {
  tenant: string;
  argv: readonly string[];
  /** What the command, a runner, is to run; absent: it is a command like any other. */
  script?: { source: string; handler: string; filename: string };
  /** Goes to standard input, or to the script. */
  input: Uint8Array;
  variables: Readonly<Record<string, string>>;
  /** Of this run alone: its sandbox ends with it. */
  environment: StartEnvironment;
  /** Absent: none. */
  network: StartNetwork | undefined;
  limits: StartLimits;
  timeoutMs: number;
  /** What it writes, in order within each stream. */
  onOutput: (stream: 'stdout' | 'stderr', data: Uint8Array) => void;
}

interface Run {
  command: PrivateCommand;
  read: { stdout: number; stderr: number };
  signal: AbortSignal;
  /** Its connection was lost: a launcher that does not list it does not have it. */
  uncertain: boolean;
  resolve: (end: FinishedMessage) => void;
  reject: (error: Error) => void;
}

/**
 * Commands that the agent runs for itself through the launcher, beside the attempts of callers. They end with this process:
 * those of an earlier one are stopped and forgotten.
 */
export class PrivateRuns {
  readonly #runs = new Map<string, Run>();
  readonly #launcher: () => Launcher;
  readonly #onIdle: () => void;

  /** @param onIdle called when the last one that ran has ended */
  constructor(launcher: () => Launcher, onIdle: () => void = () => {}) {
    this.#launcher = launcher;
    this.#onIdle = onIdle;
  }

  /** Commands that run. */
  get active(): number {
    return this.#runs.size;
  }

  /**
   * Starts the sandbox of a command that is to come with this environment.
   * @returns ends it, when no such command came
   */
  startAhead(tenant: string, environment: StartEnvironment, worker: ExpectedWorker): () => void {
    this.#launcher().warm(tenant, singleRun(environment), worker);
    return () => this.#launcher().retire(tenant, environment.key);
  }

  /**
   * Runs a command to its end, however it ends.
   * @throws HarrierError unavailable when the launcher is gone; the signal's reason when it is aborted
   */
  async run(command: PrivateCommand, signal: AbortSignal): Promise<FinishedMessage> {
    signal.throwIfAborted();
    const execution = `${PREFIX}${randomUUID()}`;
    const { promise, resolve, reject } = Promise.withResolvers<FinishedMessage>();
    const launcher = this.#launcher();
    const stop = () => launcher.cancelAttempt(execution, 1, 'cancel', CANCEL_GRACE_MS);
    const read = { stdout: 0, stderr: 0 };
    this.#runs.set(execution, { command, read, signal, uncertain: false, resolve, reject });
    signal.addEventListener('abort', stop, { once: true });
    try {
      const common = {
        type: 'start',
        execution,
        attempt: 1,
        tenant: command.tenant,
        argv: command.argv,
        input_bytes: command.input.length,
        env: command.variables,
        timeout_ms: command.timeoutMs,
        grace_ms: CANCEL_GRACE_MS,
        reuse_key: null,
        limits: command.limits,
        context: { execution_id: execution, attempt: 1, tenant: command.tenant, deadline: null },
        environment: singleRun(command.environment),
        ...(command.network === undefined ? {} : { network: command.network }),
      } as const;
      const { source = '', handler = '', filename = '' } = command.script ?? {};
      const code = Buffer.from(source);
      const message: StartMessage =
        command.script === undefined
          ? { ...common, kind: 'command' }
          : { ...common, kind: 'script', handler, filename, code_bytes: code.length };
      const started = launcher.startAttempt(message, code, command.input);
      if (!started) throw lost();
      const end = await promise;
      signal.throwIfAborted();
      return end;
    } finally {
      this.#runs.delete(execution);
      launcher.retire(command.tenant, command.environment.key);
      signal.removeEventListener('abort', stop);
      if (this.#runs.size === 0) this.#onIdle();
    }
  }

  /** The events of the launcher without those of private runs. */
  intercept(events: LauncherEvents): LauncherEvents {
    return {
      ...events,
      onWelcome: (welcome) => {
        const own = welcome.attempts.filter(({ execution }) => execution.startsWith(PREFIX));
        this.#recover(new Set(own.map(({ execution }) => execution)));
        const attempts = welcome.attempts.filter(({ execution }) => !execution.startsWith(PREFIX));
        events.onWelcome({ ...welcome, attempts });
      },
      onLost: () => {
        for (const run of this.#runs.values()) run.uncertain = true;
        events.onLost();
      },
      onStarted: (execution, attempt) => {
        if (!execution.startsWith(PREFIX)) events.onStarted(execution, attempt);
      },
      onOutput: (execution, attempt, stream, offset, data) => {
        if (execution.startsWith(PREFIX)) this.#output(execution, stream, offset, data);
        else events.onOutput(execution, attempt, stream, offset, data);
      },
      onProgress: (execution, attempt, percent, step) => {
        if (!execution.startsWith(PREFIX)) events.onProgress(execution, attempt, percent, step);
      },
      onFinished: (message, result) => {
        if (!message.execution.startsWith(PREFIX)) return events.onFinished(message, result);
        this.#launcher().acknowledge(message.execution, message.attempt, message.stdout, message.stderr, true);
        this.#runs.get(message.execution)?.resolve(message);
      },
    };
  }

  #output(execution: string, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void {
    const run = this.#runs.get(execution);
    const end = offset + data.length;
    if (run === undefined) return;
    // What was on its way when the connection was lost comes again.
    if (offset <= run.read[stream] && end > run.read[stream]) {
      run.command.onOutput(stream, data.subarray(run.read[stream] - offset));
      run.read[stream] = end;
    }
    this.#launcher().acknowledge(execution, 1, run.read.stdout, run.read.stderr, false);
  }

  #recover(listed: ReadonlySet<string>): void {
    for (const execution of listed) {
      const run = this.#runs.get(execution);
      // Also when it was to stop while nobody heard it.
      if (run === undefined || run.signal.aborted) this.#launcher().cancelAttempt(execution, 1, 'cancel', 0);
    }
    for (const [execution, run] of this.#runs) {
      // What was started after the question is not in the answer.
      if (run.uncertain && !listed.has(execution)) run.reject(lost());
      run.uncertain = false;
    }
  }
}

function singleRun(environment: StartEnvironment): StartEnvironment {
  return { ...environment, single: true };
}

function lost(): HarrierError {
  return new HarrierError('unavailable', "the agent's launcher is not running");
}
