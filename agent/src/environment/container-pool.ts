import { createHash, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { ContainerBudget, ReleasePlace } from '../docker/container-budget.ts';
import { ContainerRun } from '../docker/container-run.ts';
import { type EngineFacts, engineMessage } from '../docker/engine.ts';
import type { HeldImage } from '../docker/images.ts';
import type { StartEnvironment } from '../launcher/messages.ts';
import {
  EnvironmentError,
  type EnvironmentRequest,
  type PreparationEvents,
  type PreparedEnvironment,
} from './environment.ts';
import { FormerContainers } from './former-containers.ts';
import { launchWarmContainer, type WarmContainer, type WarmContainerOptions } from './warm-container.ts';

export interface ContainerPoolOptions extends WarmContainerOptions {
  budget: ContainerBudget;
  /** A container that nobody uses leaves after this long. */
  idleMs: number;
  /** Between two tries to remove a container that has GPUs. */
  removeAgainMs?: number;
  logger: Logger;
}

const REMOVE_AGAIN_MS = 10_000;

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
 * are forked in them by the launcher like anywhere else; a container is never used for two tenants. A call with GPUs has a
 * container of its own, which leaves with it: its interpreter would see cards that others get next.
 */
export class ContainerPool {
  readonly #options: ContainerPoolOptions;
  readonly #directory: string;
  /** By what calls share: the one that takes calls. */
  readonly #current = new Map<string, WarmContainer>();
  /** By key: all that have not left. */
  readonly #all = new Map<string, WarmContainer>();
  readonly #starts = new Map<string, Start>();
  /** What is being removed now. */
  readonly #removals = new Set<Promise<void>>();
  readonly #former: FormerContainers;
  #launcherPid: number | undefined;
  readonly #closing = new AbortController();

  constructor(options: ContainerPoolOptions) {
    this.#options = options;
    // Short: the path of a unix socket has 107 bytes at most.
    this.#directory = join(options.dataDir, 'zygotes');
    this.#former = new FormerContainers(options, (key) => this.#all.has(key));
    options.budget.onFull(() => this.#evictOne());
    options.engine.onChange(() => this.#engineChanged());
  }

  /** The container, held, when there is one that is ready. */
  find(request: EnvironmentRequest, image: HeldImage): PreparedEnvironment | undefined {
    if (hasGpus(request)) return undefined;
    const warm = this.#current.get(this.#poolKey(request, image));
    return warm?.state === 'ready' ? this.#hold(warm) : undefined;
  }

  /**
   * The container, held; started when there is none.
   * @param onGpusTaken as that of `PreparationEvents`
   * @throws EnvironmentError, EngineUnavailableError, the signal's reason when aborted
   */
  async get(
    request: EnvironmentRequest,
    image: HeldImage,
    signal: AbortSignal,
    onGpusTaken: PreparationEvents['onGpusTaken'] = NOTHING,
  ): Promise<PreparedEnvironment> {
    if (hasGpus(request)) return await this.#startAlone(request, image, signal, onGpusTaken);
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
    this.#closing.abort();
    this.#former.close();
    for (const { idleTimer } of this.#all.values()) clearTimeout(idleTimer);
    await Promise.all(this.#removals);
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Nobody else may have it, so that it follows its one caller's signal. */
  async #startAlone(
    request: EnvironmentRequest,
    image: HeldImage,
    signal: AbortSignal,
    onGpusTaken: PreparationEvents['onGpusTaken'],
  ): Promise<PreparedEnvironment> {
    const both = AbortSignal.any([signal, this.#options.engine.lost]);
    return await this.#start(
      request,
      image,
      both,
      (warm) => onGpusTaken(warm.gone.promise),
      (warm) => this.#hold(warm),
    );
  }

  #begin(pooled: string, request: EnvironmentRequest, image: HeldImage): Start {
    const waiters = new Set<Waiter>();
    const ready = this.#startShared(pooled, request, image, waiters).finally(() => this.#starts.delete(pooled));
    ready.catch(() => {});
    const start = { ready, waiters };
    this.#starts.set(pooled, start);
    return start;
  }

  async #startShared(
    pooled: string,
    request: EnvironmentRequest,
    image: HeldImage,
    waiters: ReadonlySet<Waiter>,
  ): Promise<void> {
    // Nobody's signal: whoever comes meanwhile waits for the same container.
    const { lost } = this.#options.engine;
    await this.#start(request, image, lost, NOTHING, (warm) => {
      this.#current.set(pooled, warm);
      for (const waiter of waiters) waiter.held = this.#hold(warm);
      this.#watchIdle(warm);
    });
  }

  /**
   * @param onBegin before the engine is asked for it; not when aborted
   * @param onReady in the very moment in which it is
   */
  async #start<Result>(
    request: EnvironmentRequest,
    image: HeldImage,
    signal: AbortSignal,
    onBegin: (warm: WarmContainer) => void,
    onReady: (warm: WarmContainer) => Result,
  ): Promise<Result> {
    const { engine, logger } = this.#options;
    const release = await this.#place(signal);
    if (signal.aborted) {
      release();
      throw signal.reason;
    }
    const id = randomUUID().slice(0, 8);
    const warm: WarmContainer = {
      tenant: request.tenant,
      key: `docker-${id}`,
      run: new ContainerRun(engine, `harrier-pool-${id}`),
      directory: join(this.#directory, id),
      preload: request.preload,
      cpu: processors(request, engine.facts),
      gpuUuids: request.gpuUuids ?? [],
      attached: Promise.withResolvers(),
      gone: Promise.withResolvers(),
      state: 'starting',
      users: 0,
      idleTimer: undefined,
      release,
    };
    warm.attached.promise.catch(() => {});
    this.#all.set(warm.key, warm);
    onBegin(warm);
    try {
      await launchWarmContainer(warm, image, this.#options, signal);
      // It may have ended in the very moment in which it was ready.
      if (warm.state !== 'starting') {
        throw new EnvironmentError(Code.ENVIRONMENT_FAILED, `the container of the image ${image.lock} ended at once`);
      }
    } catch (error) {
      this.#leave(warm);
      throw error;
    }
    warm.state = 'ready';
    logger.info({ container: warm.run.name, tenant: warm.tenant, image: image.lock }, 'container ready');
    return onReady(warm);
  }

  /** A place for a container that can be started now. */
  async #place(signal: AbortSignal): Promise<ReleasePlace> {
    const { budget, host } = this.#options;
    const release = await budget.take(signal);
    try {
      await orAborted(host.replaced, signal);
    } catch (error) {
      release();
      throw error;
    }
    return release;
  }

  /** Calls share a container when nothing that shapes it differs. */
  #poolKey(request: EnvironmentRequest, image: HeldImage): string {
    const { tenant, preload } = request;
    const cpu = processors(request, this.#options.engine.facts);
    return createHash('sha256')
      .update(JSON.stringify([tenant, image.id, [...preload].sort(), cpu]))
      .digest('hex');
  }

  #hold(warm: WarmContainer): PreparedEnvironment {
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

  #watchIdle(warm: WarmContainer): void {
    if (warm.users > 0 || warm.state !== 'ready' || this.#closed) return;
    clearTimeout(warm.idleTimer);
    if (this.#options.budget.contested || warm.gpuUuids.length > 0) {
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
  #leave(warm: WarmContainer): void {
    if (warm.state === 'leaving' || this.#closed) return;
    warm.state = 'leaving';
    clearTimeout(warm.idleTimer);
    this.#all.delete(warm.key);
    for (const [pooled, current] of this.#current) if (current === warm) this.#current.delete(pooled);
    this.#options.host.retire(warm.tenant, warm.key);
    const removal = this.#remove(warm).finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
  }

  async #remove(warm: WarmContainer): Promise<void> {
    this.#former.ignore(warm.run.name);
    try {
      await this.#untilRemoved(warm);
      warm.gone.resolve();
    } catch (error) {
      // It is removed when the engine is back.
      this.#options.logger.warn({ container: warm.run.name, reason: engineMessage(error) }, 'container not removed');
    } finally {
      this.#former.heed(warm.run.name);
      rmSync(warm.directory, { recursive: true, force: true });
      warm.release();
    }
  }

  /** One that has GPUs is not left to the engine's return: who has them next waits for its end. */
  async #untilRemoved({ run, gpuUuids }: WarmContainer): Promise<void> {
    const { removeAgainMs = REMOVE_AGAIN_MS, logger } = this.#options;
    for (let tries = 1; ; tries++) {
      try {
        await run.remove();
        return;
      } catch (error) {
        if (gpuUuids.length === 0 || this.#closed) throw error;
        const facts = { container: run.name, gpuUuids, reason: engineMessage(error) };
        if (tries === 1) logger.warn(facts, 'container with GPUs not removed: they are not free before it is');
      }
      await delay(removeAgainMs, undefined, { signal: this.#closing.signal, ref: false });
    }
  }

  #engineChanged(): void {
    if (this.#closed) return;
    const { engine } = this.#options;
    if (engine.unavailable() !== undefined) return;
    void this.#former.outlast();
  }
}

const NOTHING = (): void => {};

/** What bounds a container; 0 where the calls may use every processor, so that those without a limit share one. */
function processors({ cpu = 0 }: EnvironmentRequest, { cpus }: EngineFacts): number {
  return cpu < cpus ? cpu : 0;
}

function hasGpus({ gpuUuids = [] }: EnvironmentRequest): boolean {
  return gpuUuids.length > 0;
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
