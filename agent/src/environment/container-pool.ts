import { createHash, randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Logger } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { ContainerBudget, ReleasePlace } from '../docker/container-budget.ts';
import { LABEL, listContainers } from '../docker/container-list.ts';
import { containerOptions } from '../docker/container-policy.ts';
import { ContainerRun } from '../docker/container-run.ts';
import { type DockerEngine, type EngineFacts, EngineUnavailableError, engineMessage } from '../docker/engine.ts';
import type { HeldImage } from '../docker/images.ts';
import type { ExpectMessage, StartEnvironment } from '../launcher/messages.ts';
import { EnvironmentError, type EnvironmentRequest, type PreparedEnvironment } from './environment.ts';

/** What the launcher does for a container's interpreter. */
export interface ZygoteHost {
  /** Listens on a socket for one interpreter. @returns false when no launcher is connected */
  expectZygote(expected: Omit<ExpectMessage, 'type'>): boolean;
  /** Resolves when no launcher is being replaced by another one. */
  readonly replaced: Promise<void>;
  /** Ends an interpreter as soon as no call runs in it. */
  retire(tenant: string, key: string): void;
}

export interface ContainerPoolOptions {
  engine: DockerEngine;
  budget: ContainerBudget;
  host: ZygoteHost;
  /** Directory of the agent. */
  dataDir: string;
  /** A container that nobody uses leaves after this long. */
  idleMs: number;
  /** Memory of a container: of all calls in it together. */
  memoryBytes: number;
  /** `/tmp` of a container; each call has one of its own besides. */
  tmpBytes: number;
  logger: Logger;
}

/** From the start of a container to an interpreter that has imported everything. */
const ATTACH_TIMEOUT_MS = 120_000;
/** For all calls of the container together; each call has its own bound. */
const PROCESSES = 8192;
const LOG_BYTES = 1024 * 1024;
/** Shown of what a container wrote that did not come up. */
const SHOWN_CHARS = 2000;
const RUNTIME = fileURLToPath(new URL('../../runtime', import.meta.url)).replace(/\/$/, '');
const RUNTIME_TARGET = '/harrier';
const SOCKET_TARGET = '/harrier-socket';
const SOCKET = 'zygote.sock';

/**
 * A warm container:
 *
 *   starting ──attached──▶ ready ──idle too long, or its place is needed──▶ leaving ──removed──▶ (gone)
 *      └────────────failed, detached────────────────────────────────────────▲
 */
type WarmState = 'starting' | 'ready' | 'leaving';

interface Warm {
  readonly tenant: string;
  /** Tells this container from every other one, also of the same image. */
  readonly key: string;
  readonly run: ContainerRun;
  readonly directory: string;
  readonly preload: readonly string[];
  /** Processors for all calls in it together; 0: all of the host. */
  readonly cpu: number;
  readonly attached: PromiseWithResolvers<void>;
  state: WarmState;
  users: number;
  idleTimer: NodeJS.Timeout | undefined;
  release: ReleasePlace;
}

/** Who waits for a container that starts. Each gets it held, so that it cannot leave before its callers have it. */
interface Waiter {
  held: PreparedEnvironment | undefined;
}

interface Start {
  readonly ready: Promise<void>;
  readonly waiters: Set<Waiter>;
}

/**
 * Containers with a warm interpreter, one for each tenant, image, list of modules to import and limit of processors. Calls
 * are forked in them by the launcher like anywhere else; a container is never used for two tenants.
 */
export class ContainerPool {
  readonly #options: ContainerPoolOptions;
  readonly #directory: string;
  /** By what calls share: the one that takes calls. */
  readonly #current = new Map<string, Warm>();
  /** By key: all that have not left. */
  readonly #all = new Map<string, Warm>();
  readonly #starts = new Map<string, Start>();
  /** What is being removed now. */
  readonly #removals = new Set<Promise<void>>();
  /** Names of the containers that this agent waits for to end, or is removing. */
  readonly #ending = new Set<string>();
  #launcherPid: number | undefined;
  #closed = false;

  constructor(options: ContainerPoolOptions) {
    this.#options = options;
    // Short: the path of a unix socket has 107 bytes at most.
    this.#directory = join(options.dataDir, 'zygotes');
    options.budget.onFull(() => this.#evictOne());
    options.engine.onChange(() => this.#engineChanged());
  }

  /** The container, held, when there is one that is ready. */
  find(request: EnvironmentRequest, image: HeldImage): PreparedEnvironment | undefined {
    const warm = this.#current.get(this.#poolKey(request, image));
    return warm?.state === 'ready' ? this.#hold(warm) : undefined;
  }

  /**
   * The container, held; started when there is none.
   * @throws EnvironmentError, EngineUnavailableError, the signal's reason when aborted
   */
  async get(request: EnvironmentRequest, image: HeldImage, signal: AbortSignal): Promise<PreparedEnvironment> {
    const found = this.find(request, image);
    if (found !== undefined) return found;
    const pooled = this.#poolKey(request, image);
    const start = this.#starts.get(pooled) ?? this.#begin(pooled, request, image);
    const waiter: Waiter = { held: undefined };
    start.waiters.add(waiter);
    try {
      await orAborted(start.ready, signal);
    } catch (error) {
      waiter.held?.release();
      throw error;
    } finally {
      start.waiters.delete(waiter);
    }
    if (waiter.held === undefined) throw new Error('a container is ready and not held');
    return waiter.held;
  }

  /** The launcher has the interpreter of a container. One that a former agent has started takes no new calls. */
  onAttached(tenant: string, key: string): void {
    const warm = this.#all.get(key);
    if (warm === undefined) this.#options.host.retire(tenant, key);
    else warm.attached.resolve();
  }

  /** The interpreter of a container has ended, or cannot be reached. */
  onDetached(key: string, reason: string): void {
    const warm = this.#all.get(key);
    if (warm === undefined) return;
    warm.attached.reject(new Error(reason));
    this.#leave(warm);
  }

  /** A launcher answers. Interpreters end with the launcher that they belong to. */
  onLauncher(pid: number): void {
    if (pid === this.#launcherPid) return;
    this.#launcherPid = pid;
    for (const warm of [...this.#all.values()]) this.onDetached(warm.key, 'the launcher was lost');
    this.#engineChanged();
  }

  /** Removes the containers that nobody uses; those with running calls are left to the launcher and a later agent. */
  async close(): Promise<void> {
    const idle = [...this.#all.values()].filter(({ users, state }) => users === 0 && state === 'ready');
    for (const warm of idle) this.#leave(warm);
    this.#closed = true;
    for (const { idleTimer } of this.#all.values()) clearTimeout(idleTimer);
    await Promise.all(this.#removals);
  }

  #begin(pooled: string, request: EnvironmentRequest, image: HeldImage): Start {
    const waiters = new Set<Waiter>();
    const ready = this.#start(pooled, request, image, waiters).finally(() => this.#starts.delete(pooled));
    ready.catch(() => {});
    const start = { ready, waiters };
    this.#starts.set(pooled, start);
    return start;
  }

  async #start(
    pooled: string,
    request: EnvironmentRequest,
    image: HeldImage,
    waiters: ReadonlySet<Waiter>,
  ): Promise<void> {
    const { budget, engine, logger } = this.#options;
    // Nobody's signal: whoever comes meanwhile waits for the same container.
    const release = await budget.take(engine.lost);
    await this.#options.host.replaced;
    const id = randomUUID().slice(0, 8);
    const warm: Warm = {
      tenant: request.tenant,
      key: `docker-${id}`,
      run: new ContainerRun(engine, `harrier-pool-${id}`),
      directory: join(this.#directory, id),
      preload: request.preload,
      cpu: processors(request, engine.facts),
      attached: Promise.withResolvers(),
      state: 'starting',
      users: 0,
      idleTimer: undefined,
      release,
    };
    warm.attached.promise.catch(() => {});
    this.#all.set(warm.key, warm);
    try {
      await this.#launch(warm, image);
      // It may have ended in the very moment in which it was ready.
      if (warm.state !== 'starting') {
        throw new EnvironmentError(Code.ENVIRONMENT_FAILED, `the container of the image ${image.lock} ended at once`);
      }
    } catch (error) {
      this.#leave(warm);
      throw error;
    }
    warm.state = 'ready';
    this.#current.set(pooled, warm);
    for (const waiter of waiters) waiter.held = this.#hold(warm);
    this.#watchIdle(warm);
    logger.info({ container: warm.run.name, tenant: warm.tenant, image: image.lock }, 'container ready');
  }

  async #launch(warm: Warm, image: HeldImage): Promise<void> {
    const { host, engine, dataDir, memoryBytes, tmpBytes } = this.#options;
    mkdirSync(warm.directory, { recursive: true });
    // Above it only the agent may enter; in the container another user must.
    chmodSync(this.#directory, 0o700);
    chmodSync(warm.directory, 0o755);
    const { tenant, key, preload, cpu } = warm;
    const socket = join(warm.directory, SOCKET);
    if (!host.expectZygote({ tenant, key, socket, variables: {}, preload })) {
      throw new EnvironmentError(Code.ENVIRONMENT_FAILED, "the agent's launcher is not running");
    }
    const options = containerOptions(
      {
        imageId: image.id,
        entrypoint: ['python3', '-I', '-B', `${RUNTIME_TARGET}/zygote.py`],
        command: ['container', `${SOCKET_TARGET}/${SOCKET}`],
        env: {},
        labels: { [LABEL.agent]: dataDir, [LABEL.role]: 'pool', [LABEL.tenant]: tenant, [LABEL.key]: key },
        limits: { memoryBytes, cpu, processes: PROCESSES, tmpBytes, logBytes: LOG_BYTES },
        volumes: image.volumes,
        mounts: [
          { source: RUNTIME, target: RUNTIME_TARGET },
          { source: warm.directory, target: SOCKET_TARGET },
        ],
        profile: 'zygote',
        stdin: false,
      },
      engine.facts,
    );
    let written = '';
    const onOutput = (_: string, data: Buffer): void => {
      written = (written + data.toString('utf8')).slice(-SHOWN_CHARS);
    };
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error('it took too long')), ATTACH_TIMEOUT_MS);
    try {
      const running = await warm.run.start(options, undefined, onOutput, engine.lost);
      const ended = running.ended.then(() => endedEarly(warm.run));
      await Promise.race([warm.attached.promise, ended, late.promise]);
    } catch (error) {
      const gone = engine.unavailable();
      if (gone !== undefined) throw new EngineUnavailableError(gone, { cause: error });
      const said = written.trim() === '' ? '' : `:\n${written.trim()}`;
      const message = `no Python 3.9 or newer comes up in the image ${image.lock}: ${engineMessage(error)}${said}`;
      throw new EnvironmentError(Code.ENVIRONMENT_FAILED, message, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Calls share a container when nothing that shapes it differs. */
  #poolKey(request: EnvironmentRequest, image: HeldImage): string {
    const { tenant, preload } = request;
    const cpu = processors(request, this.#options.engine.facts);
    return createHash('sha256')
      .update(JSON.stringify([tenant, image.id, [...preload].sort(), cpu]))
      .digest('hex');
  }

  #hold(warm: Warm): PreparedEnvironment {
    warm.users++;
    clearTimeout(warm.idleTimer);
    let held = true;
    const start: StartEnvironment = { key: warm.key, attached: true, preload: warm.preload };
    return {
      start,
      release: () => {
        if (!held) return;
        held = false;
        warm.users--;
        this.#watchIdle(warm);
      },
    };
  }

  #watchIdle(warm: Warm): void {
    if (warm.users > 0 || warm.state !== 'ready' || this.#closed) return;
    clearTimeout(warm.idleTimer);
    if (this.#options.budget.contested) {
      this.#leave(warm);
      return;
    }
    warm.idleTimer = setTimeout(() => this.#leave(warm), this.#options.idleMs);
    // The last one that became idle is the last to make room.
    this.#all.delete(warm.key);
    this.#all.set(warm.key, warm);
  }

  #evictOne(): boolean {
    const idle = [...this.#all.values()].find(({ users, state }) => users === 0 && state === 'ready');
    if (idle !== undefined) this.#leave(idle);
    return idle !== undefined;
  }

  /** Takes no more calls; nothing that counts runs in it. */
  #leave(warm: Warm): void {
    if (warm.state === 'leaving' || this.#closed) return;
    warm.state = 'leaving';
    clearTimeout(warm.idleTimer);
    this.#all.delete(warm.key);
    for (const [pooled, current] of this.#current) if (current === warm) this.#current.delete(pooled);
    this.#options.host.retire(warm.tenant, warm.key);
    const removal = this.#remove(warm).finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
  }

  async #remove(warm: Warm): Promise<void> {
    this.#ending.add(warm.run.name);
    try {
      await warm.run.remove();
    } catch (error) {
      // It is removed when the engine is back.
      this.#options.logger.warn({ container: warm.run.name, reason: engineMessage(error) }, 'container not removed');
    } finally {
      this.#ending.delete(warm.run.name);
      rmSync(warm.directory, { recursive: true, force: true });
      warm.release();
    }
  }

  #engineChanged(): void {
    if (this.#closed) return;
    const { engine } = this.#options;
    if (engine.unavailable() !== undefined) return;
    void this.#sweep();
  }

  /**
   * Containers that this agent does not know: those of a former one may still run calls, so that they are retired, keep
   * their place, and are removed when they have ended; what has ended is removed at once.
   */
  async #sweep(): Promise<void> {
    const { engine, dataDir, host, logger } = this.#options;
    try {
      for (const { name, labels } of await listContainers(engine, { [LABEL.agent]: dataDir, [LABEL.role]: 'pool' })) {
        const key = labels[LABEL.key] ?? '';
        const tenant = labels[LABEL.tenant] ?? '';
        if (this.#closed || this.#all.has(key)) continue;
        // Also one that is being waited for already: the launcher may have it only now.
        host.retire(tenant, key);
        if (!this.#ending.has(name)) void this.#outlast(new ContainerRun(engine, name));
      }
    } catch (error) {
      logger.warn({ reason: engineMessage(error) }, 'containers not looked through');
    }
  }

  /** Removes a container of a former agent when it has ended. */
  async #outlast(run: ContainerRun): Promise<void> {
    this.#ending.add(run.name);
    const release = this.#options.budget.adopt();
    try {
      await run.exit();
      await run.remove();
    } catch (error) {
      // It is looked for again when the engine is back, or by a later agent.
      const reason = engineMessage(error);
      if (!this.#closed) this.#options.logger.warn({ container: run.name, reason }, 'container not removed');
    } finally {
      this.#ending.delete(run.name);
      release();
    }
  }
}

async function endedEarly(run: ContainerRun): Promise<never> {
  const { exitCode } = await run.exit();
  throw new Error(`it ended with exit code ${exitCode}`);
}

/** What bounds a container; 0 where the calls may use every processor, so that those without a limit share one. */
function processors({ cpu = 0 }: EnvironmentRequest, { cpus }: EngineFacts): number {
  return cpu < cpus ? cpu : 0;
}

async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
