import { type Logger, messageOf } from '@harrier/shared';
import type { ManagedService } from '@harrier/shared/gen/agent';
import { EngineUnavailableError, engineMessage } from '../docker/engine.ts';
import { ImageError, type Images } from '../docker/images.ts';
import { countEnd, countFailure, decide, FRESH, type Health, type RestartMemory, type Step } from './decide.ts';
import type { GpuProblem } from './gpu-problem.ts';
import { HttpChecks } from './http-checks.ts';
import { definitionHash, type ServiceDefinition } from './service-definition.ts';
import type { ServiceContainer, ServiceEngine } from './service-engine.ts';
import { reportOf } from './service-report.ts';

/** What somebody counts. */
export interface ServiceEvents {
  onStarted: (service: string) => void;
  /** It ended, or was ended. */
  onStopped: (service: string) => void;
}

export interface ServiceKeeperOptions {
  name: string;
  environment: string;
  engine: ServiceEngine;
  images: Pick<Images, 'ensure'>;
  /** Why the engine cannot be used now. */
  engineProblem: () => string | undefined;
  /** Why the service is not to be started with these GPUs now; what runs with them goes on. */
  gpuProblem: (uuids: readonly string[]) => GpuProblem | undefined;
  events: ServiceEvents;
  /** What is reported may have changed. */
  onChange: () => void;
  /** The service is not wanted, and nothing of it is left. */
  onGone: () => void;
  logger: Logger;
}

/** For those whose definition is not known any more. */
const DEFAULT_GRACE_MS = 10_000;

/**
 * Keeps one service as the file has it: looks at what is there, takes one step, looks again, until there is nothing to do.
 * Whatever may have changed something calls `look`; steps of one service never overlap.
 */
export class ServiceKeeper {
  readonly #options: ServiceKeeperOptions;
  #definition: ServiceDefinition | undefined;
  #graceMs = DEFAULT_GRACE_MS;
  #memory: RestartMemory = FRESH;
  #container: ServiceContainer | undefined;
  #checks: HttpChecks | undefined;
  /** Containers that ran when they were looked at last. */
  #running = new Set<string>();
  #starts = 0;
  /** The service ran before this agent did anything. */
  #adopted = false;
  #doing: string | undefined;
  #problem: string | undefined;
  /** As it was when it was looked at last. */
  #gpuProblem: GpuProblem | undefined;
  /** An image that is there, for the definition that it was fetched for. */
  #image: { definition: ServiceDefinition; id: string } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isLookWanted = false;
  #loop: Promise<void> | undefined;
  /** Aborted when what is wanted has changed: a pull of the former image is of no use. */
  #change = new AbortController();
  #closed = false;

  constructor(options: ServiceKeeperOptions) {
    this.#options = options;
  }

  get isWanted(): boolean {
    return this.#definition !== undefined;
  }

  get isRunning(): boolean {
    return this.#container?.status === 'running' && this.#options.engineProblem() === undefined;
  }

  /** @param definition undefined: the service is to end */
  want(definition: ServiceDefinition | undefined): void {
    const before = this.#definition;
    const isSame =
      definition !== undefined && before !== undefined && definitionHash(definition) === definitionHash(before);
    this.#definition = definition;
    this.#graceMs = definition?.stopGraceMs ?? this.#graceMs;
    if (!isSame) {
      this.#memory = FRESH;
      this.#problem = undefined;
      this.#gpuProblem = undefined;
      this.#change.abort(new Error('the services file has changed'));
      this.#change = new AbortController();
    }
    this.look();
  }

  /** Something may have changed. */
  look(): void {
    this.#isLookWanted = true;
    if (!this.#closed) this.#loop ??= this.#run();
  }

  /** What `gpuProblem` answers may have changed. */
  gpusChanged(): void {
    if (this.#askGpus()?.reason !== this.#gpuProblem?.reason) this.look();
  }

  /** What is told of the service; undefined when it is not wanted. */
  report(): ManagedService | undefined {
    if (this.#definition === undefined) return undefined;
    const { environment, engineProblem } = this.#options;
    return reportOf({
      definition: this.#definition,
      environment,
      engineProblem: engineProblem(),
      doing: this.#doing,
      problem: this.#problem,
      gpuProblem: this.#gpuProblem?.reason,
      container: this.#container,
      health: this.#healthOf(this.#container),
      healthMessage: this.#checks?.message ?? this.#container?.healthOutput ?? '',
      restarts: Math.max(0, this.#starts - (this.#adopted ? 0 : 1)),
    });
  }

  /** Leaves the service as it is. Resolves when nothing is done any more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#checks?.close();
    this.#change.abort(new Error('the agent stops'));
    await this.#loop;
  }

  /** Ends the service and removes its container. After `close`. */
  async end(): Promise<void> {
    const { engine, name, logger } = this.#options;
    try {
      for (const { id } of await engine.containers(name)) await engine.remove(name, id, this.#graceMs);
    } catch (error) {
      logger.warn({ service: name, reason: engineMessage(error) }, 'service not ended');
    }
  }

  async #run(): Promise<void> {
    try {
      while (this.#isLookWanted && !this.#closed) {
        this.#isLookWanted = false;
        await this.#lookOnce();
        this.#options.onChange();
      }
    } finally {
      this.#loop = undefined;
    }
    if (this.#definition === undefined && this.#container === undefined && !this.#closed) this.#options.onGone();
  }

  async #lookOnce(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#options.engineProblem() !== undefined) return;
    const { signal } = this.#change;
    let step: Step = { kind: 'rest' };
    try {
      const containers = await this.#observe();
      this.#judgeGpus();
      step = this.#allowed(decide(this.#definition, containers, this.#memory, performance.now()));
      await this.#take(step);
    } catch (error) {
      // What is wanted by now has not failed.
      if (!signal.aborted) this.#failed(step, error);
    } finally {
      this.#doing = undefined;
    }
  }

  /** Looks at the containers, and takes notice of what has happened to them. */
  async #observe(): Promise<readonly ServiceContainer[]> {
    const { name, engine, events, logger } = this.#options;
    const containers = await engine.containers(name);
    const running = new Set(containers.filter(({ status }) => status === 'running').map(({ id }) => id));
    for (const id of this.#running) if (!running.has(id)) events.onStopped(name);
    this.#running = running;
    const hash = this.#definition === undefined ? '' : definitionHash(this.#definition);
    const newest = containers.find((container) => container.hash === hash) ?? containers[0];
    const counted = newest === undefined ? this.#memory : countEnd(this.#memory, newest, performance.now());
    if (counted !== this.#memory) {
      logger.warn({ service: name, exitCode: newest?.exitCode, failures: counted.failures }, 'service ended');
    }
    this.#memory = counted;
    if (this.#container === undefined && this.#starts === 0) this.#adopted = newest?.status === 'running';
    this.#container = newest;
    this.#follow(newest);
    return containers.map((container) => ({ ...container, health: this.#healthOf(container) }));
  }

  /** Checks the container over HTTP while it runs, if that is how it is checked. */
  #follow(container: ServiceContainer | undefined): void {
    const health = this.#definition?.health;
    const url = health?.probe.kind === 'http' ? health.probe.url : undefined;
    if (health === undefined || url === undefined || container?.status !== 'running') {
      this.#checks?.close();
      this.#checks = undefined;
    } else if (this.#checks?.isOf(container.id, container.startedAtMs, health) !== true) {
      this.#checks?.close();
      this.#checks = new HttpChecks(container.id, container.startedAtMs, health, url, () => this.look());
    }
  }

  #askGpus(): GpuProblem | undefined {
    return this.#definition === undefined ? undefined : this.#options.gpuProblem(this.#definition.gpus);
  }

  #judgeGpus(): void {
    const before = this.#gpuProblem;
    this.#gpuProblem = this.#askGpus();
    if (this.#gpuProblem === undefined || this.#gpuProblem.reason === before?.reason) return;
    const { name, logger } = this.#options;
    const { kind, reason } = this.#gpuProblem;
    if (kind === 'shared')
      logger.error({ service: name, reason }, 'executions get a GPU of a service: it is not started');
    else logger.info({ service: name, reason }, 'service waits for what the driver tells of its GPUs');
  }

  /** With a GPU that executions may get, nothing is started, and what runs is not ended for a successor. */
  #allowed(step: Step): Step {
    if (this.#gpuProblem === undefined) return step;
    const isOnlyLess = step.kind === 'remove' && (step.reason === 'unwanted' || step.reason === 'superfluous');
    return isOnlyLess ? step : { kind: 'rest' };
  }

  #healthOf(container: ServiceContainer | undefined): Health {
    if (container === undefined) return 'none';
    return this.#checks?.containerId === container.id ? this.#checks.health : container.health;
  }

  async #take(step: Step): Promise<void> {
    const { name, engine, events, logger } = this.#options;
    switch (step.kind) {
      case 'rest':
        return;
      case 'wait':
        this.#timer = setTimeout(() => this.look(), Math.max(1, step.untilMs - performance.now()));
        return;
      case 'create': {
        const { definition, id } = await this.#ensureImage();
        this.#tell('creating its container');
        await engine.create(definition, id);
        this.#image = undefined;
        break;
      }
      case 'start':
        this.#tell('starting its container');
        await engine.start(this.#wanted(), step.id);
        this.#starts++;
        this.#running.add(step.id);
        this.#problem = undefined;
        events.onStarted(name);
        logger.info({ service: name, container: step.id.slice(0, 12) }, 'service started');
        break;
      case 'remove':
        // What runs goes on until its successor can be made.
        if (step.reason === 'changed') await this.#ensureImage();
        logger.info(
          { service: name, container: step.id.slice(0, 12), reason: step.reason },
          'container of a service removed',
        );
        if (step.reason === 'unhealthy') this.#memory = countFailure(this.#memory, performance.now());
        await engine.remove(name, step.id, this.#graceMs);
        break;
    }
    this.#isLookWanted = true;
  }

  async #ensureImage(): Promise<{ definition: ServiceDefinition; id: string }> {
    const definition = this.#wanted();
    if (this.#image?.definition === definition) return this.#image;
    const { engine, images, name } = this.#options;
    this.#tell(`fetching the image ${definition.image}`);
    const events = { onOutput: () => {}, onProgress: () => {} };
    const { signal } = this.#change;
    const held = await engine.timed('pull', name, () =>
      images.ensure(definition.image, definition.pull, events, signal),
    );
    this.#image = { definition, id: held.id };
    return this.#image;
  }

  #wanted(): ServiceDefinition {
    if (this.#definition === undefined) throw new Error(`the service ${this.#options.name} is not wanted`);
    return this.#definition;
  }

  #tell(doing: string): void {
    this.#doing = doing;
    this.#options.onChange();
  }

  /** What failed is tried again after a wait, or when the engine is back, or when the file changes. */
  #failed(step: Step, error: unknown): void {
    if (error instanceof EngineUnavailableError) return;
    const { name, logger } = this.#options;
    const reason = error instanceof ImageError ? messageOf(error) : engineMessage(error);
    this.#problem = reason;
    this.#memory = countFailure(this.#memory, performance.now());
    logger.warn(
      { service: name, step: step.kind, failures: this.#memory.failures, reason },
      'service could not be kept up',
    );
    const delayMs = Math.max(1, this.#memory.retryAtMs - performance.now());
    this.#timer = setTimeout(() => this.look(), delayMs);
  }
}
