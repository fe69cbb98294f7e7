import { once } from 'node:events';
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';
import { type BackoffOptions, fullJitterMs, type Logger, messageOf } from '@harrier/shared';
import type Docker from 'dockerode';

/**
 * How the engine is known:
 *
 *   down ──answers──▶ up ──stream of events ends, or no answer to a ping──▶ down      any ──▶ closed
 *
 * - down: it is tried again and again, with growing pauses; `unavailable` says why;
 * - up: it answers, and a stream of its events is open, whose end tells at once that it is gone;
 * - closed: for good.
 */
type EngineState = 'down' | 'up' | 'closed';

export interface EngineOptions {
  /** Path of the engine's unix socket. Only an engine on this host will do: files of the agent are mounted. */
  socketPath: string;
  logger: Logger;
}

/** What an engine is and can do. */
export interface EngineFacts {
  version: string;
  cpus: number;
  /** AppArmor is in force, whose profile for containers forbids every mount. */
  appArmor: boolean;
  /** Where it keeps images and containers, as the engine sees the host. */
  dataDir: string;
  /** Names of the runtimes, for example `runc`. */
  runtimes: readonly string[];
  /** How containers get GPUs; undefined: they cannot. */
  gpus: 'nvidia' | 'cdi' | undefined;
}

/** The engine does not answer. */
export class EngineUnavailableError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'EngineUnavailableError';
  }
}

const RETRY: BackoffOptions = { initialMs: 200, maxMs: 10_000, multiplier: 2 };
/** A hung engine keeps its streams open: only a ping shows it. */
const PING_EVERY_MS = 10_000;
/** An engine that hangs answers nothing, not even no. */
const ANSWER_TIMEOUT_MS = 5_000;

interface Connection {
  docker: Docker;
  facts: EngineFacts;
  /** Aborted when the engine is gone: whoever waits for an answer of it would wait for ever. */
  lost: AbortController;
}

/** The Docker engine of this host: watched, so that everybody knows at once when it is gone, and when it is back. */
export class DockerEngine {
  readonly #options: EngineOptions;
  readonly #onChange = new Set<() => void>();
  readonly #onImageEvent = new Set<() => void>();
  #state: EngineState = 'down';
  #reason: string;
  #connection: Connection | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #pingTimer: NodeJS.Timeout | undefined;
  #failures = 0;
  #firstTry: Promise<void> | undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#reason = `the Docker engine at ${options.socketPath} was not asked yet`;
  }

  /** Starts watching. Resolves when the engine was tried for the first time. */
  open(): Promise<void> {
    this.#firstTry ??= this.#connect();
    return this.#firstTry;
  }

  /** Why the engine cannot be used now; undefined when it can. */
  unavailable(): string | undefined {
    return this.#connection === undefined ? this.#reason : undefined;
  }

  /** Called when the engine has come or gone. */
  onChange(listener: () => void): void {
    this.#onChange.add(listener);
  }

  /** Called when an image was pulled, tagged or removed by anybody, and when that may have happened unseen. */
  onImageEvent(listener: () => void): void {
    this.#onImageEvent.add(listener);
  }

  /** @throws EngineUnavailableError */
  get docker(): Docker {
    return this.#connected().docker;
  }

  /** @throws EngineUnavailableError */
  get facts(): EngineFacts {
    return this.#connected().facts;
  }

  /**
   * Aborted, with an EngineUnavailableError as reason, when the engine is lost.
   * @throws EngineUnavailableError
   */
  get lost(): AbortSignal {
    return this.#connected().lost.signal;
  }

  /** Safe to call twice. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#lose('the agent stops', 'closed');
    clearTimeout(this.#retryTimer);
  }

  #connected(): Connection {
    if (this.#connection === undefined) throw new EngineUnavailableError(this.#reason);
    return this.#connection;
  }

  async #connect(): Promise<void> {
    try {
      const { socketPath } = this.#options;
      await inTime(tryConnection(socketPath));
      // Loaded only where there is an engine: it takes 30 MiB.
      const { default: Dockerode } = await import('dockerode');
      const docker = new Dockerode({ socketPath });
      const facts = await inTime(readFacts(docker));
      const events = await inTime(docker.getEvents({ filters: { type: ['image'] } }));
      if (this.#state === 'closed') {
        destroy(events);
        return;
      }
      this.#up({ docker, facts, lost: new AbortController() }, events);
    } catch (error) {
      this.#failed(describeFailure(error, this.#options.socketPath));
    }
  }

  #up(connection: Connection, events: NodeJS.ReadableStream): void {
    this.#connection = connection;
    this.#state = 'up';
    this.#failures = 0;
    const { version, cpus } = connection.facts;
    this.#options.logger.info({ engine: this.#options.socketPath, version, cpus }, 'Docker engine found');
    connection.lost.signal.addEventListener('abort', () => destroy(events), { once: true });
    const lines = createInterface({ input: events });
    lines.on('line', () => this.#tell(this.#onImageEvent));
    lines.once('close', () => {
      if (this.#connection === connection) this.#failed('the Docker engine has ended');
    });
    events.on('error', () => lines.close());
    // It repeats the errors of its input.
    lines.on('error', () => lines.close());
    this.#pingTimer = setInterval(() => void this.#ping(connection), PING_EVERY_MS);
    this.#tell(this.#onImageEvent);
    this.#tell(this.#onChange);
  }

  async #ping({ docker, lost }: Connection): Promise<void> {
    try {
      await inTime(docker.ping());
    } catch (error) {
      if (!lost.signal.aborted) this.#failed(`the Docker engine does not answer: ${engineMessage(error)}`);
    }
  }

  #failed(reason: string): void {
    if (this.#state === 'closed') return;
    this.#lose(reason, 'down');
    this.#retryTimer = setTimeout(() => void this.#connect(), fullJitterMs(this.#failures++, RETRY));
  }

  #lose(reason: string, next: 'down' | 'closed'): void {
    const connection = this.#connection;
    const told = this.#reason;
    this.#state = next;
    this.#reason = reason;
    this.#connection = undefined;
    clearInterval(this.#pingTimer);
    if (connection !== undefined) {
      this.#options.logger.warn({ engine: this.#options.socketPath, reason }, 'Docker engine lost');
      connection.lost.abort(new EngineUnavailableError(reason));
    }
    if (next === 'down' && (connection !== undefined || told !== reason)) this.#tell(this.#onChange);
  }

  #tell(listeners: ReadonlySet<() => void>): void {
    for (const listener of listeners) listener();
  }
}

/** What the client puts before them. */
const HTTP_PREFIX = /^\(HTTP code \d+\) [^-]* - /;

/** The connection to the engine broke: it has ended, and it is only not known yet. */
const BROKEN = ['EPIPE', 'ECONNRESET', 'ECONNREFUSED', 'ENOENT', 'ERR_STREAM_PREMATURE_CLOSE'];

/** The engine's own words about a request that failed. */
export function engineMessage(error: unknown): string {
  if (error instanceof EngineUnavailableError) return error.message;
  if (isConnectionError(error)) return `the Docker engine does not answer: ${messageOf(error)}`;
  const told = (error as { json?: { message?: unknown } } | undefined)?.json?.message;
  return typeof told === 'string' ? told : messageOf(error).replace(HTTP_PREFIX, '');
}

/** Whether the engine was not there for the request. */
export function isConnectionError(error: unknown): boolean {
  return error instanceof EngineUnavailableError || BROKEN.includes((error as NodeJS.ErrnoException).code ?? '');
}

/** The HTTP status with which the engine refused a request; undefined when it did not answer at all. */
export function engineStatus(error: unknown): number | undefined {
  const status = (error as { statusCode?: unknown } | undefined)?.statusCode;
  return typeof status === 'number' ? status : undefined;
}

/** The answer, or an error when it does not come in time. */
async function inTime<T>(answer: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('no answer in time')), ANSWER_TIMEOUT_MS);
  try {
    return await Promise.race([answer, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

async function tryConnection(socketPath: string): Promise<void> {
  const socket = createConnection(socketPath);
  try {
    await once(socket, 'connect');
  } finally {
    socket.destroy();
  }
}

async function readFacts(docker: Docker): Promise<EngineFacts> {
  const info = await docker.info();
  if (info.OSType !== 'linux') throw new Error(`the engine runs ${info.OSType} containers`);
  const security: string[] = info.SecurityOptions ?? [];
  if (!security.some((option) => option.startsWith('name=seccomp'))) throw new Error('the engine has no seccomp');
  return {
    version: info.ServerVersion,
    cpus: info.NCPU,
    appArmor: security.some((option) => option.startsWith('name=apparmor')),
    dataDir: info.DockerRootDir,
    runtimes: Object.keys(info.Runtimes ?? {}).sort(),
    gpus: gpuSupport(info),
  };
}

/** NVIDIA's runtime, or what the Container Device Interface has found, which engines tell from API 1.50 on. */
function gpuSupport(info: { Runtimes?: object; DiscoveredDevices?: { ID?: string }[] }): EngineFacts['gpus'] {
  if (Object.hasOwn(info.Runtimes ?? {}, 'nvidia')) return 'nvidia';
  return (info.DiscoveredDevices ?? []).some(({ ID }) => ID?.startsWith('nvidia.com/gpu=')) ? 'cdi' : undefined;
}

function describeFailure(error: unknown, socketPath: string): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') return `no Docker engine answers at ${socketPath}`;
  if (code === 'EACCES') return `this user may not use the Docker engine at ${socketPath}`;
  return `the Docker engine at ${socketPath} cannot be used: ${engineMessage(error)}`;
}

function destroy(stream: NodeJS.ReadableStream): void {
  (stream as NodeJS.ReadableStream & { destroy(): void }).destroy();
}
