import type { Environment } from '@harrier/shared/gen/module';
import type { StartEnvironment } from '../launcher/messages.ts';
import { SharedTasks, type TaskEvents } from '../tasks/shared-tasks.ts';
import type { BuildDirectories, StartAhead } from './build-space.ts';
import {
  EnvironmentError,
  type EnvironmentProvider,
  type EnvironmentRequest,
  type PreparationEvents,
  type PreparedEnvironment,
  type ResolvedEnvironment,
} from './environment.ts';
import {
  type Built,
  type EnvironmentPlace,
  EnvironmentStore,
  type Finish,
  type HeldEnvironment,
} from './environment-store.ts';

/** As `Launcher.warm`. */
export type Warm = (tenant: string, environment: StartEnvironment) => void;

export interface PackageProviderOptions {
  /** Why no sandbox can be had now. */
  unavailable: () => string | undefined;
  /** Starts interpreters ahead; absent: nothing is started ahead. */
  warm?: Warm | undefined;
}

const SILENT: TaskEvents = { onOutput: () => undefined, onProgress: () => undefined };
/** What is forgotten only makes an answer less exact. */
const MAX_SIZES = 1_000;

/** Where a step of a build works, and for whom. */
export interface BuildStep {
  tenant: string;
  directories: BuildDirectories;
  events: TaskEvents;
  signal: AbortSignal;
  /** To be called when the tree has its interpreter and only packages are missing; once, more often or not at all. Absent: nobody asks. */
  onMade?: () => void;
}

/** What is to be prepared, for whom. */
interface Wanted<Plan> {
  tenant: string;
  plan: Plan;
  /** Modules to import in the interpreter that the first call uses; undefined: it is of no use to start one ahead. */
  ahead: readonly string[] | undefined;
}

/** What a resolver has found. */
export interface Resolution {
  lock: string;
  /** Bytes to download, as far as the index tells; 0: unknown. */
  sizeBytes: number;
}

/** What a kind of environment whose packages are installed on this host has of its own. */
export interface PackageKind<Plan> {
  readonly kind: 'venv' | 'conda';
  /**
   * What a request comes to, before anything is resolved.
   * @throws EnvironmentError
   */
  plan(environment: Environment): Promise<Plan>;
  /** As `plan`, from what is known already; undefined where `plan` has to look. @throws EnvironmentError */
  knownPlan(environment: Environment): Plan | undefined;
  /**
   * Of what a caller wrote and what it means on this host now: the same request finds the same environment without
   * resolving it again, until the operator changes what it means.
   */
  requestKey(plan: Plan): string;
  /** The lock of the request, or of one that needs no resolver; undefined: it is to be found. */
  lockOf(plan: Plan): string | undefined;
  /** What a lock that is found here holds for; agents of another platform find their own. */
  platformOf(plan: Plan): string;
  /**
   * A lock as it is installed and kept.
   * @throws EnvironmentError for one that cannot be read, or names what the plan does not allow
   */
  checkedLock(plan: Plan, lock: string): string;
  /** Everything that shapes the environment of a checked lock; see `EnvironmentStore.keyOf`. */
  shapeOf(plan: Plan, lock: string): readonly unknown[];
  /** What `start` needs to know of the environment. */
  factsOf(plan: Plan): Record<string, string>;
  resolve(plan: Plan, step: BuildStep): Promise<Resolution>;
  /** Fills the tree with exactly what a checked lock names, each package verified where the lock has its digest. */
  install(plan: Plan, lock: string, step: BuildStep): Promise<void>;
  /** What `Built.finish` is for an environment of the kind; absent: nothing. */
  finish?(plan: Plan, step: BuildStep): Promise<void>;
  /** Starts the sandbox that a build of a plan like this begins with; see `StartAhead`. Absent: nothing. */
  startAhead?(plan: Plan, sandbox: Pick<BuildStep, 'tenant' | 'directories'>): () => void;
  /** `resolve`, then `install` of what was found. */
  resolveAndInstall(plan: Plan, step: BuildStep): Promise<string>;
  /** How interpreters are started in an environment with these facts. */
  start(place: EnvironmentPlace, facts: Record<string, string>, preload: readonly string[]): StartEnvironment;
}

/**
 * Environments of packages: what a request has led to is found again; otherwise a lock is found, and decided with the control
 * plane, and what it names is installed once.
 */
export class PackageProvider<Plan> implements EnvironmentProvider {
  readonly #store: EnvironmentStore;
  readonly #own: PackageKind<Plan>;
  readonly #options: PackageProviderOptions;
  readonly #resolving = new SharedTasks<Resolution>();
  /** Bytes to download for locks that were resolved here, by the key of their environment. */
  readonly #sizes = new Map<string, number>();

  constructor(store: EnvironmentStore, own: PackageKind<Plan>, options: PackageProviderOptions) {
    this.#store = store;
    this.#own = own;
    this.#options = options;
  }

  get kind(): 'venv' | 'conda' {
    return this.#own.kind;
  }

  unavailable(): string | undefined {
    return this.#options.unavailable();
  }

  refusal(): string | undefined {
    return this.#store.whyNoRoom();
  }

  prepared(request: EnvironmentRequest): PreparedEnvironment | undefined {
    const plan = this.#knownPlan(request.environment);
    if (plan === undefined) return undefined;
    const lock = this.#lockOf(plan, request);
    const held = this.#store.holdByRequest(request.tenant, this.#requestKey(plan, lock));
    if (held === undefined) return undefined;
    this.#finishLater(held, request.tenant, plan);
    const prepared = this.#prepared(held, request.preload);
    if (lock !== undefined) return prepared;
    return { ...prepared, lock: held.manifest.lock, platform: this.#own.platformOf(plan) };
  }

  holdAll(): { release(): void } {
    return this.#store.holdAll();
  }

  async prepare(
    request: EnvironmentRequest,
    events: PreparationEvents,
    signal: AbortSignal,
  ): Promise<PreparedEnvironment> {
    const { tenant, environment, preload } = request;
    const plan = await this.#own.plan(environment);
    const lock = this.#lockOf(plan, request);
    // Calls with cards have an interpreter each.
    const ahead = request.partOnly || request.gpuUuids?.length ? undefined : preload;
    const wanted = { tenant, plan, ahead };
    const held =
      lock === undefined
        ? await this.#decided(wanted, events, signal)
        : await this.#install(wanted, lock, this.#requestKey(plan, lock), events, signal);
    this.#finishLater(held, tenant, plan);
    return this.#prepared(held, preload);
  }

  async resolve(request: EnvironmentRequest, signal: AbortSignal): Promise<ResolvedEnvironment> {
    const { tenant, environment } = request;
    const plan = await this.#own.plan(environment);
    const found = this.#lockOf(plan, request) ?? (await this.#resolve(tenant, plan, signal));
    const lock = this.#own.checkedLock(plan, found);
    const key = this.#keyOf(plan, lock);
    const held = this.#store.hold(tenant, key);
    held?.release();
    const sizeBytes = held?.manifest.sizeBytes ?? this.#sizes.get(key) ?? 0;
    return { lock, platform: this.#own.platformOf(plan), sizeBytes, held: held !== undefined };
  }

  /** The lock of the request, or that which was decided for this platform; undefined: it is to be found. */
  #lockOf(plan: Plan, { decidedLocks = {} }: EnvironmentRequest): string | undefined {
    return this.#own.lockOf(plan) ?? decidedLocks[this.#own.platformOf(plan)] ?? decidedLocks[''];
  }

  /** A request leads to another environment once its lock is decided. */
  #requestKey(plan: Plan, lock: string | undefined): string {
    const key = this.#own.requestKey(plan);
    return lock === undefined ? key : EnvironmentStore.keyOf([key, lock]);
  }

  /** As `plan` of the kind; undefined where `prepare` has to look, or says what is wrong. */
  #knownPlan(environment: Environment): Plan | undefined {
    try {
      return this.#own.knownPlan(environment);
    } catch (error) {
      if (error instanceof EnvironmentError) return undefined;
      throw error;
    }
  }

  /**
   * What the same request has led to before, or else what it comes to now, is there before its lock is decided: mostly it is
   * the one that is decided. When another agent was first, that agent's is installed, and this one is evicted some time.
   */
  async #decided(wanted: Wanted<Plan>, events: PreparationEvents, signal: AbortSignal): Promise<HeldEnvironment> {
    const { tenant, plan } = wanted;
    const request = this.#own.requestKey(plan);
    const found =
      this.#store.holdByRequest(tenant, request) ??
      (await this.#store.buildUnnamed(tenant, request, events, signal, async (directories, told, stop, place) => {
        told.onProgress(0, 'resolving and installing packages');
        const onMade = () => this.#startAhead(wanted, place);
        const step = { tenant, directories, events: told, signal: stop, onMade };
        return this.#built(wanted, await this.#own.resolveAndInstall(plan, step));
      }));
    try {
      const lock = await events.decideLock(found.manifest.lock, this.#own.platformOf(plan));
      return await this.#install(wanted, lock, request, events, signal);
    } finally {
      found.release();
    }
  }

  async #install(
    wanted: Wanted<Plan>,
    text: string,
    request: string,
    events: TaskEvents,
    signal: AbortSignal,
  ): Promise<HeldEnvironment> {
    const { tenant, plan } = wanted;
    const built = this.#built(wanted, text);
    return await this.#store.build(tenant, built, request, events, signal, async (directories, told, stop, place) => {
      told.onProgress(0, 'installing packages');
      const onMade = () => this.#startAhead(wanted, place);
      await this.#own.install(plan, built.lock, { tenant, directories, events: told, signal: stop, onMade });
    });
  }

  /** An interpreter takes as long to start as packages to come; it imports nothing before the first call. */
  #startAhead({ tenant, plan, ahead }: Wanted<Plan>, place: EnvironmentPlace): void {
    const { warm } = this.#options;
    if (ahead !== undefined) warm?.(tenant, this.#own.start(place, this.#own.factsOf(plan), ahead));
  }

  #prepared(held: HeldEnvironment, preload: readonly string[]): PreparedEnvironment {
    return { start: this.#own.start(held, held.manifest.facts, preload), release: () => held.release() };
  }

  async #resolve(tenant: string, plan: Plan, signal: AbortSignal): Promise<string> {
    const key = `${tenant} ${this.#own.requestKey(plan)}`;
    const { lock, sizeBytes } = await this.#resolving.run(
      key,
      SILENT,
      signal,
      async (told, stop) =>
        await this.#store.scratch(tenant, stop, async (directories, watched) => {
          const step = { tenant, directories, events: told, signal: watched };
          return await this.#own.resolve(plan, step);
        }),
    );
    if (this.#sizes.size >= MAX_SIZES) this.#sizes.clear();
    this.#sizes.set(this.#keyOf(plan, this.#own.checkedLock(plan, lock)), sizeBytes);
    return lock;
  }

  #built({ tenant, plan, ahead }: Wanted<Plan>, text: string): Built {
    const lock = this.#own.checkedLock(plan, text);
    const built = { key: this.#keyOf(plan, lock), kind: this.kind, lock, facts: this.#own.factsOf(plan) };
    const finish = this.#finishOf(tenant, plan);
    const startNext = ahead === undefined ? undefined : this.#startNextOf(tenant, plan);
    return { ...built, ...(finish === undefined ? {} : { finish }), ...(startNext === undefined ? {} : { startNext }) };
  }

  #startNextOf(tenant: string, plan: Plan): StartAhead | undefined {
    if (this.#own.startAhead === undefined) return undefined;
    return (directories) => this.#own.startAhead?.(plan, { tenant, directories }) ?? (() => undefined);
  }

  #finishOf(tenant: string, plan: Plan): Finish | undefined {
    if (this.#own.finish === undefined) return undefined;
    return async (directories, signal) =>
      await this.#own.finish?.(plan, { tenant, directories, events: SILENT, signal });
  }

  /** A former agent may have ended before it was finished. */
  #finishLater(held: HeldEnvironment, tenant: string, plan: Plan): void {
    const finish = held.manifest.unfinished ? this.#finishOf(tenant, plan) : undefined;
    if (finish !== undefined) this.#store.finishLater(held, finish);
  }

  #keyOf(plan: Plan, lock: string): string {
    return EnvironmentStore.keyOf([this.kind, ...this.#own.shapeOf(plan, lock)]);
  }
}
