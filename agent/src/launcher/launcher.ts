import { type BackoffOptions, fullJitterMs, HarrierError, type Logger, messageOf } from '@harrier/shared';
import { LauncherSocket } from './launcher-socket.ts';
import {
  type CancelReason,
  type ExpectedWorker,
  type ExpectMessage,
  type FinishedMessage,
  type FromLauncher,
  type GuardMessage,
  type LeaseMessage,
  type LoadMessage,
  PROTOCOL,
  type StartEnvironment,
  type StartMessage,
  type ToLauncher,
  type WelcomeMessage,
  withAbout,
} from './messages.ts';

/**
 * The connection to the launcher:
 *
 *   searching ──connected──▶ greeting ──welcome──▶ ready
 *       ▲                        │                   │
 *       └────────────────────────┴──lost, replaced───┘      any ──▶ closed
 *
 * - searching: tries to connect, and starts a launcher when none answers, unless somebody else does;
 * - greeting: `hello` was sent;
 * - ready: messages go both ways;
 * - closed: for good; the launcher itself runs on.
 */
export type LauncherState = 'searching' | 'greeting' | 'ready' | 'closed';

const NEXT: Readonly<Record<LauncherState, readonly LauncherState[]>> = {
  searching: ['greeting', 'closed'],
  greeting: ['ready', 'searching', 'closed'],
  ready: ['searching', 'closed'],
  closed: [],
};

export interface LauncherEvents {
  /** The answer to the first hello and to the last `replay` of several; what is unacknowledged follows. */
  onWelcome(welcome: WelcomeMessage): void;
  /** The connection is lost; it is sought again. Messages sent to it may be lost. */
  onLost(): void;
  onStarted(execution: string, attempt: number): void;
  onOutput(execution: string, attempt: number, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void;
  onProgress(execution: string, attempt: number, percent: number, step: string): void;
  onFinished(message: FinishedMessage, result: Uint8Array): void;
  onLoad(load: LoadMessage): void;
  /** The interpreter of a container takes calls from now on. */
  onAttached(tenant: string, key: string): void;
  /** It takes none any more. */
  onDetached(tenant: string, key: string, reason: string): void;
}

export interface LauncherOptions {
  socketPath: string;
  /** Starts a launcher and resolves when it listens. Undefined: a service manager does, whenever there is none. */
  start: (() => Promise<void>) | undefined;
  /** What it is to know of the lease; undefined while that is not known. */
  lease?: () => Omit<LeaseMessage, 'type'> | undefined;
  events: LauncherEvents;
  logger: Logger;
}

/** Between tries: the first is soon, a launcher that cannot start is not tried every second. */
const BACKOFF: BackoffOptions = { initialMs: 20, maxMs: 10_000, multiplier: 2 };

/** A service manager has started the launcher before the agent; it may have to start it again. */
const SERVICE_DEADLINE_MS = 30_000;

/** The launcher beside this agent: found or started, and found again when it is lost. */
export class Launcher {
  readonly #options: LauncherOptions;
  #state: LauncherState = 'searching';
  #socket: LauncherSocket | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  /** Hellos whose welcome has not come. */
  #unanswered = 0;
  #failures = 0;
  #paused = false;
  #features: ReadonlySet<string> = new Set();
  #build: string | undefined;
  #startedHere = false;
  /** What waits for the launcher that comes in the place of a replaced one; undefined while nothing is replaced. */
  #waiting: [ToLauncher, ...Uint8Array[]][] | undefined;
  #replaced = Promise.withResolvers<void>();
  readonly #firstReady = Promise.withResolvers<void>();
  /** Set when the launcher was told to end; settled when it has. */
  #stopped: PromiseWithResolvers<void> | undefined;

  constructor(options: LauncherOptions) {
    this.#options = options;
    this.#firstReady.promise.catch(() => {});
    this.#replaced.resolve();
  }

  get state(): LauncherState {
    return this.#state;
  }

  /** Seeks the launcher. Resolves when it has answered for the first time; rejects when none can be started. */
  open(): Promise<void> {
    this.#connect();
    if (this.#options.start === undefined) this.#expectService();
    return this.#firstReady.promise;
  }

  /**
   * @returns false when no launcher is connected
   * @throws LauncherProtocolError when the attempt is larger than a frame may be
   */
  startAttempt(message: StartMessage, ...body: Uint8Array[]): boolean {
    if (this.#state !== 'ready' && this.#waiting === undefined) return false;
    this.#send(message, ...body);
    return true;
  }

  /** Lost when no launcher is connected. */
  cancelAttempt(execution: string, attempt: number, reason: CancelReason, graceMs: number): void {
    this.#send({ type: 'cancel', execution, attempt, reason, grace_ms: graceMs });
  }

  /** Lost when no launcher is connected; the launcher then offers again what it has. */
  acknowledge(execution: string, attempt: number, stdout: number, stderr: number, result: boolean): void {
    if (this.#state !== 'ready') return;
    const ack = { type: 'ack', execution, attempt, stdout, stderr, result } as const;
    // Output waits for its acknowledgement; a result does not.
    if (result) this.#socket?.sendLater(ack);
    else this.#socket?.send(ack);
  }

  /**
   * Starts the zygote of an environment ahead of its first call, where there is room for it.
   * @param worker what to fork for that call; absent: nothing of the environment is imported before it comes
   */
  warm(tenant: string, environment: StartEnvironment, worker?: ExpectedWorker): void {
    if (this.#state !== 'ready' || !this.#features.has('warm')) return;
    this.#socket?.send({ type: 'warm', tenant, environment, ...(worker === undefined ? {} : { worker }) });
  }

  /** The zygote of an environment is not needed any more: it ends when it is idle. */
  retire(tenant: string, key: string): void {
    if (this.#state === 'ready') this.#socket?.send({ type: 'retire', tenant, key });
  }

  /** Listens for the interpreter of a container; `onAttached` follows. @returns false when no launcher is connected */
  expectZygote(expected: Omit<ExpectMessage, 'type'>): boolean {
    if (this.#state !== 'ready') return false;
    this.#socket?.send({ type: 'expect', ...expected });
    return true;
  }

  /** What the launcher was started from; empty: it does not say. Undefined while none answers. */
  get build(): string | undefined {
    return this.#state === 'ready' ? this.#build : undefined;
  }

  /** Whether this process has started the launcher. */
  get startedHere(): boolean {
    return this.#startedHere;
  }

  /** Resolves when no launcher is being replaced. */
  get replaced(): Promise<void> {
    return this.#replaced.promise;
  }

  /** Lets an idle launcher end and starts another one. What is started meanwhile waits for that. */
  replace(): void {
    if (this.#state !== 'ready') return;
    this.#socket?.send({ type: 'stop', grace_ms: 0 });
    this.#waiting = [];
    this.#replaced = Promise.withResolvers();
    this.#setState('searching');
    this.#options.events.onLost();
  }

  /** Whether it stops attempts with the lease by itself. */
  get enforcesLease(): boolean {
    return this.#features.has('lease');
  }

  /** Whether it can give GPUs to attempts, and tells a restarted agent who has which. */
  get givesGpus(): boolean {
    return this.#features.has('gpus');
  }

  /** Tells the lease anew. Done by itself whenever a launcher answers. */
  tellLease(): void {
    const lease = this.#options.lease?.();
    if (lease !== undefined && this.#state === 'ready' && this.enforcesLease) {
      this.#socket?.send({ type: 'lease', ...lease });
    }
  }

  /** The container ends with the lease; to be told again after each `onWelcome`. Lost when no launcher is connected. */
  guardContainer(guard: Omit<GuardMessage, 'type'>): void {
    if (this.#state === 'ready' && this.enforcesLease) this.#socket?.send({ type: 'guard', ...guard });
  }

  /** The container is gone. */
  releaseContainer(execution: string, attempt: number): void {
    if (this.#state === 'ready' && this.enforcesLease) this.#socket?.send({ type: 'unguard', execution, attempt });
  }

  /** Asks for a welcome and for everything that is unacknowledged. */
  replay(): void {
    if (this.#state === 'ready') this.#hello();
  }

  /** Takes no messages while paused; the launcher's own window then holds it back. */
  setPaused(paused: boolean): void {
    this.#paused = paused;
    if (paused) this.#socket?.pause();
    else this.#socket?.resume();
  }

  /** Asks the launcher to stop everything and to end. Resolves when its connection is gone. */
  stop(graceMs: number): Promise<void> {
    if (this.#stopped !== undefined) return this.#stopped.promise;
    if (this.#waiting !== undefined) return this.#replaced.promise.then(() => this.stop(graceMs));
    if (this.#state !== 'ready') return Promise.resolve();
    this.#stopped = Promise.withResolvers();
    this.#socket?.send({ type: 'stop', grace_ms: graceMs });
    this.setPaused(false);
    return this.#stopped.promise;
  }

  /** Leaves the launcher alone for good. Safe to call twice. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#setState('closed');
    clearTimeout(this.#retryTimer);
    this.#socket?.end();
    this.#replaced.resolve();
    this.#firstReady.reject(new HarrierError('canceled', 'the agent stops'));
  }

  #send(message: ToLauncher, ...body: Uint8Array[]): void {
    if (this.#state === 'ready') this.#socket?.send(message, ...body);
    else this.#waiting?.push([message, ...body]);
  }

  #setState(next: LauncherState): void {
    if (!NEXT[this.#state].includes(next)) {
      throw new HarrierError('internal', `the launcher's connection cannot go from ${this.#state} to ${next}`);
    }
    this.#state = next;
  }

  #hello(): void {
    this.#unanswered++;
    this.#socket?.send({ type: 'hello', protocol: PROTOCOL });
  }

  #connect(): void {
    const socket = new LauncherSocket(this.#options.socketPath, {
      onOpen: () => {
        this.#setState('greeting');
        this.#unanswered = 0;
        this.#hello();
      },
      onMessage: (message, body) => {
        if (this.#state !== 'closed') this.#handle(message, body);
      },
      onClose: (error) => this.#closed(error),
    });
    this.#socket = socket;
    if (this.#paused) socket.pause();
  }

  #handle(message: FromLauncher, body: Buffer): void {
    const { events } = this.#options;
    switch (message.type) {
      case 'welcome':
        if (this.#state === 'greeting') this.#becomeReady(message);
        // Until the last hello is answered, what comes was sent before it, and comes again.
        if (--this.#unanswered === 0) events.onWelcome(withAbout(message, body));
        this.#replaced.resolve();
        return;
      case 'started':
        events.onStarted(message.execution, message.attempt);
        return;
      case 'output':
        events.onOutput(message.execution, message.attempt, message.stream, message.offset, body);
        return;
      case 'progress':
        events.onProgress(message.execution, message.attempt, message.percent, message.step);
        return;
      case 'finished':
        events.onFinished(message, body);
        return;
      case 'load':
        events.onLoad(message);
        return;
      case 'attached':
        events.onAttached(message.tenant, message.key);
        return;
      case 'detached':
        events.onDetached(message.tenant, message.key, message.reason);
        return;
    }
  }

  #becomeReady(welcome: WelcomeMessage): void {
    this.#setState('ready');
    this.#failures = 0;
    const { pid, version, isolation, attempts } = welcome;
    const { logger } = this.#options;
    logger.info({ launcherPid: pid, version, isolation, attempts: attempts.length }, 'launcher ready');
    this.#features = new Set(welcome.features);
    this.#build = welcome.build ?? '';
    this.tellLease();
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const [message, ...body] of waiting) this.#socket?.send(message, ...body);
    // What this answer lists are attempts of before: the next one knows those, too.
    if (waiting.length > 0) this.#hello();
    this.#firstReady.resolve();
  }

  #closed(error: Error | undefined): void {
    if (this.#stopped !== undefined && this.#state !== 'closed') this.#setState('closed');
    this.#stopped?.resolve();
    if (this.#state === 'closed') return;
    const wasReady = this.#state === 'ready';
    if (this.#state !== 'searching') {
      this.#setState('searching');
      this.#options.logger.warn({ reason: error?.message ?? 'it closed the connection' }, 'launcher lost');
      if (wasReady) this.#options.events.onLost();
    }
    const { start } = this.#options;
    if (nobodyListens(error) && start !== undefined) void this.#start(start);
    else this.#tryLater();
  }

  #expectService(): void {
    const message = `no launcher answers on ${this.#options.socketPath}, and this agent is not to start one (HARRIER_AGENT_START_LAUNCHER); why the service has none may be told by: systemctl status harrier-launcher`;
    const late = () => this.#firstReady.reject(new HarrierError('failed_precondition', message));
    const timer = setTimeout(late, SERVICE_DEADLINE_MS);
    const settled = () => clearTimeout(timer);
    this.#firstReady.promise.then(settled, settled);
  }

  async #start(start: () => Promise<void>): Promise<void> {
    try {
      await start();
      this.#startedHere = true;
    } catch (failure) {
      this.#options.logger.error({ reason: messageOf(failure) }, 'no launcher');
      this.#firstReady.reject(failure);
      this.#tryLater();
      return;
    }
    if (this.#state !== 'closed') this.#connect();
  }

  #tryLater(): void {
    if (this.#state === 'closed') return;
    this.#retryTimer = setTimeout(() => this.#connect(), fullJitterMs(this.#failures++, BACKOFF));
  }
}

/** No socket, or a socket that a dead launcher left. */
function nobodyListens(error: Error | undefined): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}
