import { createInterface } from 'node:readline';
import type { Logger } from '@harrier/shared';
import type { ImageInspectInfo } from 'dockerode';
import { SharedTasks, type TaskEvents } from '../tasks/shared-tasks.ts';
import { type DockerEngine, EngineUnavailableError, engineMessage, engineStatus, isConnectionError } from './engine.ts';
import type { ImagePolicy } from './image-policy.ts';
import {
  engineName,
  familiarName,
  formatImage,
  fullName,
  type ImageReference,
  ImageReferenceError,
  type NamedImage,
  parseImageReference,
  suffix,
} from './image-reference.ts';
import { type PullLine, PullProgress } from './pull-progress.ts';
import { CredentialsError, registryCredentials } from './registry-credentials.ts';
import { whileUp } from './while-up.ts';

/** When an image is fetched: always before it is used, when the engine does not have it, or by the operator only. */
export type PullRule = 'always' | 'if_missing' | 'never';

/** An image that the engine has. */
export interface HeldImage {
  /** `sha256:…`, as the engine knows it. */
  id: string;
  /** The image for good: name, tag and digest; the id where it came from no registry. */
  lock: string;
  sizeBytes: number;
  /** Directories that the image declares as volumes. */
  volumes: readonly string[];
}

/** Why an image cannot be had: `denied` by the agent's own rule, else for a reason outside. */
export class ImageError extends Error {
  readonly denied: boolean;

  constructor(message: string, options: ErrorOptions & { denied?: boolean } = {}) {
    super(message, options);
    this.name = 'ImageError';
    this.denied = options.denied ?? false;
  }
}

/** Nothing was fetched, since there is no room for anything: another agent may have some. */
export class NoRoomError extends ImageError {
  constructor(message: string) {
    super(message);
    this.name = 'NoRoomError';
  }
}

export interface ImagesOptions {
  engine: DockerEngine;
  policy: ImagePolicy;
  /** A `config.json` of Docker with `auths`; undefined: no credentials. */
  credentialsPath: string | undefined;
  /**
   * Why no image can be fetched to where the engine keeps its own; undefined when one can, or nobody knows. At once. Absent:
   * nobody asks.
   */
  whyNoRoom?: (dataDir: string) => string | undefined;
  logger: Logger;
}

/** Locks are short, and an agent that has forgotten one asks again. */
const MAX_KNOWN = 10_000;

type Lines = NodeJS.ReadableStream & { destroy(): void };

/** The images of the engine, as far as this agent may use them. */
export class Images {
  readonly #options: ImagesOptions;
  readonly #held = new Map<string, HeldImage>();
  readonly #pulls = new SharedTasks<void>();
  /** Whole references whose tag has named their digest, as this agent has seen or was told. */
  readonly #known = new Set<string>();

  constructor(options: ImagesOptions) {
    this.#options = options;
    // Whatever was known of names may be wrong now.
    options.engine.onImageEvent(() => this.#held.clear());
    options.engine.onChange(() => this.#held.clear());
  }

  /** An image that is known to be there; undefined says nothing. */
  held(text: string): HeldImage | undefined {
    return this.#held.get(text);
  }

  /**
   * The image, fetched if need be. One fetch of an image goes on at a time, however many ask for it; what it tells are
   * whole lines.
   * @param text a reference; where the policy allows its tag alone, its digest must be one that the tag has named
   * @throws ImageError; NoRoomError before anything was fetched; EngineUnavailableError; the signal's reason when aborted
   */
  async ensure(text: string, rule: PullRule, events: TaskEvents, signal: AbortSignal): Promise<HeldImage> {
    const reference = await this.#allowed(text, signal);
    const known = rule === 'always' ? undefined : (this.#held.get(text) ?? (await this.#find(text, reference, signal)));
    if (known !== undefined) return known;
    if (rule === 'never') {
      throw new ImageError(`the image ${formatImage(reference)} is not on this agent, and pull is NEVER`);
    }
    if ('id' in reference) {
      throw new ImageError(
        `the image ${reference.id} is not on this agent, and an id cannot be fetched from a registry`,
      );
    }
    await this.#checkRoom(text, reference, rule, signal);
    await this.#pulls.run(engineName(reference), events, signal, (told, stop) => this.#pull(reference, told, stop));
    const found = await this.#find(text, reference, signal);
    if (found === undefined) throw new ImageError(`the image ${formatImage(reference)} is gone after it was fetched`);
    return found;
  }

  /**
   * What a registry or the engine says of an image, without fetching it.
   * @throws ImageError; EngineUnavailableError; the signal's reason when aborted
   */
  async resolve(
    text: string,
    rule: PullRule,
    signal: AbortSignal,
  ): Promise<{ lock: string; sizeBytes: number; held: boolean }> {
    const reference = await this.#allowed(text, signal);
    const known = await this.#find(text, reference, signal);
    if (known !== undefined && (rule !== 'always' || 'id' in reference)) {
      return { lock: known.lock, sizeBytes: known.sizeBytes, held: true };
    }
    if ('id' in reference || rule === 'never') {
      throw new ImageError(`the image ${formatImage(reference)} is not on this agent`);
    }
    const lock = formatImage({ ...reference, digest: await this.#digest(reference, signal) });
    this.#remember(lock);
    return { lock, sizeBytes: 0, held: known?.lock === lock };
  }

  /**
   * Takes the control plane's word that a tag has named a digest.
   * @param lock the image with its digest, as it was found for `text`, a reference without one
   */
  trust(lock: string, text: string): void {
    const locked = parse(lock);
    if ('id' in locked || formatImage({ ...locked, digest: undefined }) !== formatImage(parse(text))) return;
    this.#remember(lock);
  }

  /** An image that is there is asked for again: mostly there is nothing to fetch. */
  async #checkRoom(text: string, reference: NamedImage, rule: PullRule, signal: AbortSignal): Promise<void> {
    const { engine, whyNoRoom } = this.#options;
    const full = whyNoRoom?.(engine.facts.dataDir);
    if (full === undefined) return;
    if (rule === 'always' && (await this.#find(text, reference, signal)) !== undefined) return;
    throw new NoRoomError(`no room for the image ${formatImage(reference)}: ${full}`);
  }

  #remember(lock: string): void {
    this.#known.add(lock);
    const [oldest] = this.#known;
    if (this.#known.size > MAX_KNOWN && oldest !== undefined) this.#known.delete(oldest);
  }

  async #allowed(text: string, signal: AbortSignal): Promise<ImageReference> {
    const reference = parse(text);
    if ('id' in reference) return reference;
    const { policy } = this.#options;
    const denied = policy.denied(reference);
    if (denied === undefined) return reference;
    if (policy.tagDenied(reference) !== undefined) throw new ImageError(denied, { denied: true });
    await this.#checkDigest(reference, signal);
    return reference;
  }

  /** Where a tag alone is allowed, a digest beside it must be the tag's: here, as it was found, or in its registry. */
  async #checkDigest(reference: NamedImage, signal: AbortSignal): Promise<void> {
    const lock = formatImage(reference);
    const tagged = { ...reference, digest: undefined };
    if (this.#known.has(lock) || (await this.#find(formatImage(tagged), tagged, signal))?.lock === lock) return;
    const digest = await this.#digest(tagged, signal);
    if (digest !== reference.digest) {
      const why = `${formatImage(tagged)} is ${digest} by now, and ${this.#options.policy.rule}`;
      throw new ImageError(`the image ${lock} is not allowed on this agent: ${why}`, { denied: true });
    }
    this.#remember(lock);
  }

  /** The digest that a name stands for in its registry. */
  async #digest(reference: NamedImage, signal: AbortSignal): Promise<string> {
    const { engine } = this.#options;
    try {
      const authconfig = await this.#credentials(reference);
      const image = engine.docker.getImage(engineName(reference));
      // Its types know it with a callback only.
      const asked = image.distribution(authconfig === undefined ? {} : { authconfig }) as unknown;
      const answer = asked as Promise<{ Descriptor: { digest: string } }>;
      return (await whileUp(engine, answer, signal)).Descriptor.digest;
    } catch (error) {
      signal.throwIfAborted();
      throw this.#failure(reference, error);
    }
  }

  async #find(text: string, reference: ImageReference, signal: AbortSignal): Promise<HeldImage | undefined> {
    const { engine } = this.#options;
    let info: ImageInspectInfo;
    try {
      info = await whileUp(engine, engine.docker.getImage(engineName(reference)).inspect(), signal);
    } catch (error) {
      signal.throwIfAborted();
      if (engineStatus(error) === 404) return undefined;
      if (isConnectionError(error)) throw new EngineUnavailableError(engineMessage(error), { cause: error });
      throw this.#failure(reference, error);
    }
    if ('id' in reference) this.#checkNames(reference.id, info);
    const image: HeldImage = {
      id: info.Id,
      lock: lockOf(reference, info),
      sizeBytes: info.Size,
      volumes: Object.keys(info.Config?.Volumes ?? {}),
    };
    this.#held.set(text, image);
    if (!('id' in reference) && reference.digest === undefined && image.lock !== image.id) this.#remember(image.lock);
    return image;
  }

  /** An id says nothing of where an image came from: one of its names must be allowed. */
  #checkNames(id: string, { RepoTags, RepoDigests }: ImageInspectInfo): void {
    const names = [...(RepoTags ?? []), ...(RepoDigests ?? [])].filter((name) => !name.includes('<none>'));
    const denials = names.map((name) => {
      const reference = parse(name);
      return 'id' in reference ? undefined : this.#options.policy.denied(reference);
    });
    if (denials.includes(undefined)) return;
    throw new ImageError(denials[0] ?? `the image ${id} has no name that ${this.#options.policy.rule}`, {
      denied: true,
    });
  }

  async #pull(reference: NamedImage, { onOutput, onProgress }: TaskEvents, signal: AbortSignal): Promise<void> {
    const { engine, logger } = this.#options;
    const say = (text: string): void => onOutput(Buffer.from(`${text}\n`));
    try {
      const ended = AbortSignal.any([signal, engine.lost]);
      const authconfig = await this.#credentials(reference);
      const { tag, digest } = reference;
      const step = `pulling ${formatImage(reference)}`;
      say(step);
      const query = { fromImage: familiarName(reference), tag: digest ?? tag, abortSignal: ended };
      const answer = engine.docker.createImage(authconfig, query) as Promise<Lines>;
      const lines = await whileUp(engine, answer, signal);
      ended.addEventListener('abort', () => lines.destroy(), { once: true });
      const progress = new PullProgress();
      let percent = 0;
      for await (const text of createInterface({ input: lines })) {
        const line: PullLine = JSON.parse(text);
        if (line.error !== undefined) throw new Error(line.error);
        const told = progress.add(line);
        if (told !== undefined) say(told);
        // The engine tells of every few bytes.
        if (Math.floor(progress.percent) === percent) continue;
        percent = Math.floor(progress.percent);
        onProgress(percent, step);
      }
      ended.throwIfAborted();
      logger.info({ image: formatImage(reference) }, 'image pulled');
    } catch (error) {
      signal.throwIfAborted();
      throw this.#failure(reference, error);
    }
  }

  async #credentials({ registry }: NamedImage): Promise<Awaited<ReturnType<typeof registryCredentials>>> {
    const { credentialsPath } = this.#options;
    return credentialsPath === undefined ? undefined : await registryCredentials(credentialsPath, registry);
  }

  #failure(reference: ImageReference, cause: unknown): Error {
    const gone = this.#options.engine.unavailable();
    const why = gone ?? (cause instanceof CredentialsError ? cause.message : engineMessage(cause));
    return new ImageError(`the image ${formatImage(reference)} cannot be had: ${why}`, { cause });
  }
}

function parse(text: string): ImageReference {
  try {
    return parseImageReference(text);
  } catch (error) {
    if (!(error instanceof ImageReferenceError)) throw error;
    throw new ImageError(error.message, { cause: error });
  }
}

/** Name, tag and digest. An image that was built here, or loaded from a file, has no digest, and only an id. */
function lockOf(reference: ImageReference, { Id, RepoDigests }: ImageInspectInfo): string {
  if ('id' in reference) return Id;
  if (reference.digest !== undefined) return formatImage(reference);
  const start = `${familiarName(reference)}@`;
  const digest = (RepoDigests ?? []).find((text) => text.startsWith(start))?.slice(start.length);
  return digest === undefined ? Id : fullName(reference) + suffix({ tag: reference.tag, digest });
}
