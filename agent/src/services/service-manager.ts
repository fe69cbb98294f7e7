import { type Logger, messageOf } from '@harrier/shared';
import type { ManagedService } from '@harrier/shared/gen/agent';
import type { DockerEngine } from '../docker/engine.ts';
import type { Images } from '../docker/images.ts';
import { gpuProblem } from './gpu-problem.ts';
import type { ServiceDefinition } from './service-definition.ts';
import { type EngineCall, ServiceEngine } from './service-engine.ts';
import { type ServiceEvents, ServiceKeeper } from './service-keeper.ts';

export interface ServiceManagerOptions {
  engine: DockerEngine;
  images: Pick<Images, 'ensure'>;
  dataDir: string;
  environment: string;
  /** Whether executions get this GPU, a part of it, or what it is a part of; undefined: not known yet. */
  isSharedGpu: (uuid: string) => boolean | undefined;
  events: ServiceEvents & { onEngineCall: (call: EngineCall) => void };
  /** What `reports` answers may have changed. */
  onChange: () => void;
  logger: Logger;
}

/** Between a stream of events that broke and the next try, while the engine itself is there. */
const WATCH_AGAIN_MS = 1_000;
/** An agent that stops does not wait longer than this for services that are to end with it, beyond their own grace. */
const END_DEADLINE_MS = 30_000;

/**
 * Keeps the services of the file up. What is there is found by the labels of its containers, so that services outlive the
 * agent, and the next one takes them up.
 */
export class ServiceManager {
  readonly #options: ServiceManagerOptions;
  readonly #engine: ServiceEngine;
  readonly #keepers = new Map<string, ServiceKeeper>();
  #order: readonly string[] = [];
  #stopWithAgent = false;
  #watch: { close(): void } | undefined;
  #watchTimer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ServiceManagerOptions) {
    this.#options = options;
    this.#engine = new ServiceEngine(options.engine, options.dataDir, options.events.onEngineCall);
  }

  /** Starts keeping these services, and ends all others that this agent's data directory has. */
  start(services: readonly ServiceDefinition[], stopWithAgent: boolean): void {
    this.#options.engine.onChange(() => this.#engineChanged());
    this.change(services, stopWithAgent);
    this.#engineChanged();
  }

  /** The file has changed. */
  change(services: readonly ServiceDefinition[], stopWithAgent: boolean): void {
    this.#order = services.map(({ name }) => name);
    this.#stopWithAgent = stopWithAgent;
    const wanted = new Map(services.map((service) => [service.name, service]));
    for (const [name, keeper] of this.#keepers) if (!wanted.has(name)) keeper.want(undefined);
    for (const [name, service] of wanted) this.#keeper(name).want(service);
    this.#options.onChange();
  }

  /** What `isSharedGpu` answers may have changed. */
  gpusChanged(): void {
    for (const keeper of this.#keepers.values()) keeper.gpusChanged();
  }

  /** Every service of the file, in its order. */
  reports(): ManagedService[] {
    return this.#order.map((name) => this.#keepers.get(name)?.report()).filter((report) => report !== undefined);
  }

  /** Every service of the file by name, and whether it runs. */
  running(): ReadonlyMap<string, boolean> {
    return new Map(this.#order.map((name) => [name, this.#keepers.get(name)?.isRunning === true]));
  }

  /** Leaves the services running, or ends them where the file says so. Before the engine is closed; safe to call twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#watchTimer);
    this.#watch?.close();
    const keepers = [...this.#keepers.values()];
    const end = async (keeper: ServiceKeeper): Promise<void> => {
      await keeper.close();
      if (this.#stopWithAgent) await keeper.end();
    };
    await inTime(Promise.all(keepers.map(end)));
  }

  #keeper(name: string): ServiceKeeper {
    const known = this.#keepers.get(name);
    if (known !== undefined) return known;
    const { environment, isSharedGpu, images, events, onChange, engine, logger } = this.#options;
    const keeper: ServiceKeeper = new ServiceKeeper({
      name,
      environment,
      engine: this.#engine,
      images,
      engineProblem: () => engine.unavailable(),
      gpuProblem: (uuids) => gpuProblem(uuids, isSharedGpu),
      events,
      onChange,
      onGone: () => {
        if (this.#keepers.get(name) === keeper && !keeper.isWanted) this.#keepers.delete(name);
      },
      logger,
    });
    this.#keepers.set(name, keeper);
    return keeper;
  }

  #engineChanged(): void {
    if (this.#closed) return;
    clearTimeout(this.#watchTimer);
    // They tell why they are not kept up.
    if (this.#options.engine.unavailable() !== undefined) this.#options.onChange();
    else void this.#follow();
  }

  /** Follows the engine's events. Nothing is missed: whatever came before them is looked at once they are followed. */
  async #follow(): Promise<void> {
    const { engine, logger } = this.#options;
    try {
      const { ended, close } = await this.#engine.watch((service) => this.#keepers.get(service)?.look());
      this.#watch?.close();
      this.#watch = { close };
      if (this.#closed) close();
      await this.#lookForOthers();
      for (const keeper of this.#keepers.values()) keeper.look();
      await ended;
    } catch (error) {
      logger.debug({ reason: messageOf(error) }, 'events of services not followed');
    }
    if (this.#closed || engine.unavailable() !== undefined) return;
    clearTimeout(this.#watchTimer);
    this.#watchTimer = setTimeout(() => void this.#follow(), WATCH_AGAIN_MS);
  }

  /** Services that a former file of this agent had. */
  async #lookForOthers(): Promise<void> {
    for (const name of await this.#engine.services()) {
      if (!this.#keepers.has(name) && !this.#closed) this.#keeper(name).want(undefined);
    }
  }
}

async function inTime(work: Promise<unknown>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, END_DEADLINE_MS);
  await Promise.race([work, late.promise]);
  clearTimeout(timer);
}
