import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Environment_Docker_Pull as Pull } from '@harrier/shared/gen/module';
import { NO_GPUS } from '../docker/container-policy.ts';
import { type DockerEngine, EngineUnavailableError } from '../docker/engine.ts';
import { ALLOWED_IMAGES_SETTING, type ImagePolicy } from '../docker/image-policy.ts';
import { type HeldImage, ImageError, type Images, NoRoomError, type PullRule } from '../docker/images.ts';
import type { ContainerPool } from './container-pool.ts';
import {
  EnvironmentError,
  type EnvironmentProvider,
  type EnvironmentRequest,
  type PreparationEvents,
  type PreparedEnvironment,
  type ResolvedEnvironment,
} from './environment.ts';

/** A digest names the image for each platform that it was made for. */
const EVERY_PLATFORM = '';
/** The setting that messages name. */
const RUNNER_IMAGES_SETTING = 'HARRIER_AGENT_RUNNER_IMAGES';
/** What modules are written in when they do not say. */
const DEFAULT_LANGUAGE = 'python';
const UNSPECIFIED: readonly Pull[] = [Pull.PULL_UNSPECIFIED, Pull.IF_MISSING];

export interface DockerEnvironmentOptions {
  engine: DockerEngine;
  images: Images;
  policy: ImagePolicy;
  pool: ContainerPool;
  /** Images for code that names none, by language. */
  runnerImages: Readonly<Record<string, string>>;
}

/** An image that is there, for programs that have a container of their own. */
export class PreparedImage implements PreparedEnvironment {
  readonly start = undefined;
  readonly image: HeldImage;

  constructor(image: HeldImage) {
    this.image = image;
  }

  release(): void {}
}

/**
 * The environment `docker`: images, and for Python a container in which an interpreter is warm. Other programs get a
 * container of their own for each call, so that for them only the image is prepared.
 */
export class DockerEnvironment implements EnvironmentProvider {
  readonly kind = 'docker';
  readonly #options: DockerEnvironmentOptions;

  constructor(options: DockerEnvironmentOptions) {
    this.#options = options;
  }

  unavailable(): string | undefined {
    const { engine, policy } = this.#options;
    if (policy.closed) return `no image is allowed here (${ALLOWED_IMAGES_SETTING})`;
    return engine.unavailable();
  }

  prepared(request: EnvironmentRequest): PreparedEnvironment | undefined {
    const image = this.#known(request);
    if (image === undefined) return undefined;
    const { name, decided } = this.#wanted(request);
    const lock = isLocked(decided ?? name, image) ? undefined : image.lock;
    // Only for Python the lock is told beside a call that runs already.
    if (!isPython(request)) return lock === undefined ? new PreparedImage(image) : undefined;
    const found = this.#options.pool.find(request, image);
    return found === undefined || lock === undefined ? found : { ...found, lock };
  }

  async prepare(
    request: EnvironmentRequest,
    events: PreparationEvents,
    signal: AbortSignal,
  ): Promise<PreparedEnvironment> {
    try {
      const image = await this.#image(request, events, signal);
      if (!isPython(request)) return new PreparedImage(image);
      if (request.gpuUuids?.length && this.#options.engine.facts.gpus === undefined) {
        throw new EnvironmentError(Code.ENVIRONMENT_FAILED, NO_GPUS);
      }
      events.onProgress(100, 'starting the container');
      return await this.#options.pool.get(request, image, signal, (gone) => events.onGpusTaken(gone));
    } catch (error) {
      throw environmentError(error, signal);
    }
  }

  async resolve(request: EnvironmentRequest, signal: AbortSignal): Promise<ResolvedEnvironment> {
    try {
      const { name, rule, decided } = this.#wanted(request);
      return { ...(await this.#options.images.resolve(decided ?? name, rule, signal)), platform: EVERY_PLATFORM };
    } catch (error) {
      throw environmentError(error, signal);
    }
  }

  /** The image, when neither the engine nor a registry is to be asked for it. */
  #known(request: EnvironmentRequest): HeldImage | undefined {
    const { environment, language, decidedLocks } = request;
    const { images, runnerImages } = this.#options;
    if (this.unavailable() !== undefined || environment.kind.case !== 'docker') return undefined;
    const { image, pull } = environment.kind.value;
    if (pull === Pull.ALWAYS) return undefined;
    return images.held(decidedLocks?.[EVERY_PLATFORM] || image || (runnerImages[language || DEFAULT_LANGUAGE] ?? ''));
  }

  async #image(request: EnvironmentRequest, events: PreparationEvents, signal: AbortSignal): Promise<HeldImage> {
    const { images } = this.#options;
    const { name, rule, decided } = this.#wanted(request);
    if (decided !== undefined) return await images.ensure(decided, rule, events, signal);
    const image = await images.ensure(name, rule, events, signal);
    if (isLocked(name, image)) return image;
    const lock = await events.decideLock(image.lock, EVERY_PLATFORM);
    if (lock === image.lock) return image;
    images.trust(lock, name);
    return await images.ensure(lock, rule, events, signal);
  }

  /** What is asked for, and the image that was decided for it: that an agent has found for exactly this name. */
  #wanted({ environment, language, decidedLocks }: EnvironmentRequest): {
    name: string;
    rule: PullRule;
    decided: string | undefined;
  } {
    const docker = environment.kind.case === 'docker' ? environment.kind.value : undefined;
    const rule = pullRule(docker?.pull);
    const name = docker?.image || this.#options.runnerImages[language || DEFAULT_LANGUAGE];
    if (name !== undefined) {
      const decided = rule === 'always' ? undefined : decidedLocks?.[EVERY_PLATFORM];
      if (decided !== undefined) this.#options.images.trust(decided, name);
      return { name, rule, decided };
    }
    const message = `no image is named, and this agent has none for ${language || DEFAULT_LANGUAGE} (${RUNNER_IMAGES_SETTING})`;
    throw new EnvironmentError(Code.ENVIRONMENT_FAILED, message);
  }
}

export function pullRule(pull: Pull | undefined): PullRule {
  if (pull === undefined || UNSPECIFIED.includes(pull)) return 'if_missing';
  return pull === Pull.ALWAYS ? 'always' : 'never';
}

function isPython({ language }: EnvironmentRequest): boolean {
  return language === 'python';
}

/** The name says for good which image it is; or the image is known to no registry, and to this engine only. */
function isLocked(name: string, image: HeldImage): boolean {
  return name.includes('@') || !image.lock.includes('@');
}

function environmentError(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (error instanceof ImageError) {
    const code = error.denied ? Code.POLICY_DENIED : Code.ENVIRONMENT_FAILED;
    return new EnvironmentError(code, error.message, { cause: error, elsewhere: error instanceof NoRoomError });
  }
  if (error instanceof EngineUnavailableError) {
    return new EnvironmentError(Code.ENVIRONMENT_FAILED, error.message, { cause: error });
  }
  return error;
}
