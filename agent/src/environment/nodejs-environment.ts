import { randomUUID } from 'node:crypto';
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { StartEnvironment } from '../launcher/messages.ts';
import type { PrivateRuns } from '../launcher/private-runs.ts';
import {
  EnvironmentError,
  type EnvironmentProvider,
  type PreparedEnvironment,
  type ResolvedEnvironment,
} from './environment.ts';
import { findNodejs, type NodejsInterpreter } from './nodejs-interpreters.ts';

const MIB = 1024 * 1024;
const RUNNER = fileURLToPath(new URL('../../../deploy/runners/nodejs/sandbox.mjs', import.meta.url));
const RUNNER_DIRECTORY = '/opt/harrier-nodejs';
/** With less of a heap Node.js does not start. */
const MIN_HEAP_MIB = 16;
/** No tenant has that name: theirs are UUIDs. */
const TRIAL_TENANT = 'agent';
const TRIAL_TIMEOUT_MS = 20_000;
/** While there is none, whether one has been installed. */
const LOOK_AGAIN_MS = 60_000;
const TRIAL_LIMITS = {
  memory_bytes: 256 * MIB,
  cpu: 0,
  stdout_bytes: 64 * 1024,
  stderr_bytes: 64 * 1024,
  result_bytes: 64 * 1024,
  tmp_bytes: 16 * MIB,
  processes: 64,
};
const TRIAL_SCRIPT = {
  source: 'exports.handler = () => ({})',
  handler: 'handler',
  filename: 'trial.js',
};

export interface NodejsEnvironmentOptions {
  /** The operator's PATH. */
  searchPath: string;
  runs: PrivateRuns;
  /** Why nothing can be run in a sandbox now. */
  unavailable: () => string | undefined;
  onSupportChange: () => void;
  logger: Logger;
  nowMs?: () => number;
}

/** An interpreter that has run a call, and which file of the host it was. */
interface Tried {
  prepared: PreparedEnvironment;
  program: string;
  file: string | undefined;
}

/** Node.js in the sandbox, with nothing but its own modules: the host's, if the sandbox's user can run it. */
export class NodejsEnvironment implements EnvironmentProvider {
  readonly kind = 'nodejs';
  readonly #options: NodejsEnvironmentOptions;
  readonly #closed = new AbortController();
  readonly #nowMs: () => number;
  #tried: Tried | undefined;
  #reason = 'it is still being looked for';
  #looking: Promise<void> = Promise.resolve();
  /** When the last look ended; undefined before the first has. */
  #lookedMs: number | undefined;

  constructor(options: NodejsEnvironmentOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  /**
   * Looks for a Node.js and tries it in a sandbox; to be called whenever there is another launcher. Never rejects.
   * Settles when all that was asked for has been looked at.
   */
  look(): Promise<void> {
    this.#looking = this.#looking.then(() => this.#look());
    return this.#looking;
  }

  close(): void {
    this.#closed.abort(new Error('the agent stops'));
  }

  /** Asked before every call and with every beat: notices an interpreter that is gone, or another one, and looks again. */
  unavailable(): string | undefined {
    const reason = this.#options.unavailable();
    if (reason !== undefined) return reason;
    this.#notice();
    return this.#tried === undefined ? this.#reason : undefined;
  }

  prepared(): PreparedEnvironment | undefined {
    return this.#tried?.prepared;
  }

  async prepare(): Promise<PreparedEnvironment> {
    if (this.#tried !== undefined) return this.#tried.prepared;
    throw new EnvironmentError(Code.ENVIRONMENT_FAILED, `no Node.js on this agent: ${this.#reason}`);
  }

  /** There is nothing to lock. */
  async resolve(): Promise<ResolvedEnvironment> {
    return { lock: '', platform: '', sizeBytes: 0, held: true };
  }

  #notice(): void {
    const { logger, onSupportChange } = this.#options;
    if (this.#tried === undefined) {
      if (this.#lookedMs !== undefined && this.#nowMs() - this.#lookedMs >= LOOK_AGAIN_MS) void this.look();
      return;
    }
    const { program, file } = this.#tried;
    const now = fileAt(program);
    if (now === file) return;
    this.#tried = undefined;
    this.#reason = `${program} ${now === undefined ? 'is gone' : 'is another one now'}, and what is there is being tried`;
    logger.warn({ program }, 'Node.js for the sandbox is gone or another one; looking again');
    void this.look();
    // Whoever asks may be about to tell the answer.
    queueMicrotask(onSupportChange);
  }

  async #look(): Promise<void> {
    if (this.#closed.signal.aborted || this.#options.unavailable() !== undefined) return;
    this.#lookedMs = undefined;
    const { found, refused } = await findNodejs(this.#options.searchPath);
    let tried: Tried | undefined;
    for (const interpreter of found) {
      const { program } = interpreter;
      const file = fileAt(program);
      const failure = await this.#try(interpreter);
      if (failure === undefined) {
        this.#options.logger.info({ version: interpreter.version }, 'Node.js is there for the sandbox');
        tried = { prepared: preparedWith(interpreter, file), program, file };
        break;
      }
      refused.push(`Node.js ${interpreter.version} does not run in the sandbox: ${failure}`);
    }
    this.#tried = tried;
    this.#lookedMs = this.#nowMs();
    this.#reason = refused.join('; ') || 'there is no program "node" on its PATH';
    this.#options.onSupportChange();
  }

  /** Why it does not run in the sandbox, which only a call can tell; undefined when it does. */
  async #try(interpreter: NodejsInterpreter): Promise<string | undefined> {
    let stderr = '';
    const { start, scriptCommand } = preparedWith(interpreter);
    try {
      const { outcome, error } = await this.#options.runs.run(
        {
          tenant: TRIAL_TENANT,
          argv: scriptCommand(TRIAL_LIMITS.memory_bytes),
          script: TRIAL_SCRIPT,
          input: Buffer.from('{}'),
          variables: {},
          environment: { ...start, key: `nodejs trial ${randomUUID()}` },
          network: undefined,
          limits: TRIAL_LIMITS,
          timeoutMs: TRIAL_TIMEOUT_MS,
          onOutput: (stream, data) => {
            if (stream === 'stderr') stderr += Buffer.from(data).toString();
          },
        },
        this.#closed.signal,
      );
      return outcome === 'succeeded' ? undefined : `${error?.message ?? outcome} ${stderr}`.trim();
    } catch (error) {
      return messageOf(error);
    }
  }
}

/** Tells a file from another one that takes its place; undefined: there is none. */
function fileAt(path: string): string | undefined {
  try {
    const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mtimeNs].join();
  } catch {
    return undefined;
  }
}

function preparedWith({ version, program, path, flags, binds }: NodejsInterpreter, file = '') {
  const start: StartEnvironment = {
    // A sandbox goes on with the file that it was started with.
    key: `nodejs ${version} ${program} ${file}`,
    binds: [...binds, { source: dirname(RUNNER), target: RUNNER_DIRECTORY, writable: false }],
    variables: {
      ...(binds.length === 0 ? {} : { PATH: `${dirname(path)}:/usr/local/bin:/usr/bin:/bin` }),
      // From version 24 on, `fetch` and `node:http` then use the proxy that a call with network has, and trust whom the
      // host trusts, as Python does.
      NODE_USE_ENV_PROXY: '1',
      NODE_USE_SYSTEM_CA: '1',
    },
  };
  const scriptCommand = (memoryBytes: number) => {
    // Unless it knows, V8 takes garbage for cheaper than the kernel does.
    const heapMib = Math.max(MIN_HEAP_MIB, Math.floor(memoryBytes / MIB));
    const heap = memoryBytes === 0 ? [] : [`--max-old-space-size=${heapMib}`];
    return [path, ...flags, ...heap, `${RUNNER_DIRECTORY}/sandbox.mjs`];
  };
  return { start, scriptCommand, release: () => {} };
}
