import { randomUUID } from 'node:crypto';
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
}

/** Node.js in the sandbox, with nothing but its own modules: the host's, if the sandbox's user can run it. */
export class NodejsEnvironment implements EnvironmentProvider {
  readonly kind = 'nodejs';
  readonly #options: NodejsEnvironmentOptions;
  readonly #closed = new AbortController();
  #prepared: PreparedEnvironment | undefined;
  #reason = 'it is still being looked for';
  #looking: Promise<void> = Promise.resolve();

  constructor(options: NodejsEnvironmentOptions) {
    this.#options = options;
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

  unavailable(): string | undefined {
    return this.#options.unavailable() ?? (this.#prepared === undefined ? this.#reason : undefined);
  }

  prepared(): PreparedEnvironment | undefined {
    return this.#prepared;
  }

  async prepare(): Promise<PreparedEnvironment> {
    if (this.#prepared !== undefined) return this.#prepared;
    throw new EnvironmentError(Code.ENVIRONMENT_FAILED, `no Node.js on this agent: ${this.#reason}`);
  }

  /** There is nothing to lock. */
  async resolve(): Promise<ResolvedEnvironment> {
    return { lock: '', platform: '', sizeBytes: 0, held: true };
  }

  async #look(): Promise<void> {
    if (this.#closed.signal.aborted || this.#options.unavailable() !== undefined) return;
    const { found, refused } = await findNodejs(this.#options.searchPath);
    let prepared: PreparedEnvironment | undefined;
    for (const interpreter of found) {
      const failure = await this.#try(interpreter);
      if (failure === undefined) {
        this.#options.logger.info({ version: interpreter.version }, 'Node.js is there for the sandbox');
        prepared = preparedWith(interpreter);
        break;
      }
      refused.push(`Node.js ${interpreter.version} does not run in the sandbox: ${failure}`);
    }
    this.#prepared = prepared;
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

function preparedWith({ version, path, flags, binds }: NodejsInterpreter) {
  const start: StartEnvironment = {
    key: `nodejs ${version} ${path}`,
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
