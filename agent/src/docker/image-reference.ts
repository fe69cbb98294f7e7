/** An image by name, or by the id that one engine knows it by. */
export type ImageReference = NamedImage | { id: string };

export interface NamedImage {
  /** `docker.io`, `registry.example.com:5000`. */
  registry: string;
  /** `library/python`. */
  repository: string;
  /** Absent only beside a digest. */
  tag: string | undefined;
  /** `sha256:…`. */
  digest: string | undefined;
}

export class ImageReferenceError extends Error {
  constructor(text: string, why: string) {
    super(`"${text}" names no image: ${why}`);
    this.name = 'ImageReferenceError';
  }
}

const DEFAULT_REGISTRY = 'docker.io';
/** Another name of the same registry, which older tools write. */
const LEGACY_REGISTRY = 'index.docker.io';

const ID = /^(sha256:)?[0-9a-f]{64}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const COMPONENT = /^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$/;
const REGISTRY =
  /^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:\d+)?$/;
const MAX_REPOSITORY_CHARS = 255;

/**
 * Reads a reference as Docker does: `[registry/]repository[:tag][@digest]`, or 64 hexadecimal digits with or without
 * `sha256:`, which is an id. Grammar: github.com/distribution/reference.
 * @throws ImageReferenceError
 */
export function parseImageReference(text: string): ImageReference {
  if (ID.test(text)) return { id: text.startsWith('sha256:') ? text : `sha256:${text}` };
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !DIGEST.test(digest))
    throw new ImageReferenceError(text, 'a digest is sha256:… of 64 digits');
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/');
  const tag = hasTag ? named.slice(colon + 1) : undefined;
  if (tag !== undefined && !TAG.test(tag)) throw new ImageReferenceError(text, `"${tag}" is no tag`);
  const { registry, repository } = splitName(hasTag ? named.slice(0, colon) : named);
  if (!REGISTRY.test(registry)) throw new ImageReferenceError(text, `"${registry}" is no registry`);
  const bad = repository.split('/').find((component) => !COMPONENT.test(component));
  if (bad !== undefined) {
    throw new ImageReferenceError(text, `"${bad}" is not of lower-case letters and digits, separated by one of ._-`);
  }
  // Without its registry it would be the name of an image of that other one, and so it is written in places.
  const [first = ''] = repository.split('/', 1);
  if (registry === DEFAULT_REGISTRY && first !== repository && isRegistry(first)) {
    throw new ImageReferenceError(text, `"${first}" is a registry, and stands behind another one`);
  }
  if (repository.length > MAX_REPOSITORY_CHARS) throw new ImageReferenceError(text, 'it is too long');
  return { registry, repository, tag: tag ?? (digest === undefined ? 'latest' : undefined), digest };
}

function splitName(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  if (isRegistry(first)) {
    const registry = first === LEGACY_REGISTRY ? DEFAULT_REGISTRY : first;
    return { registry, repository: officialName(registry, name.slice(slash + 1)) };
  }
  return { registry: DEFAULT_REGISTRY, repository: officialName(DEFAULT_REGISTRY, name) };
}

/** Docker's rule: what stands before the first slash is a registry when it could not be part of a Docker Hub name. */
function isRegistry(first: string): boolean {
  return first === 'localhost' || /[.:A-Z]/.test(first);
}

function officialName(registry: string, repository: string): string {
  return registry === DEFAULT_REGISTRY && !repository.includes('/') ? `library/${repository}` : repository;
}

/** `docker.io/library/python`: one text for one repository. */
export function fullName({ registry, repository }: NamedImage): string {
  return `${registry}/${repository}`;
}

/** `python`: as people and the engine write it. */
export function familiarName({ registry, repository }: NamedImage): string {
  if (registry !== DEFAULT_REGISTRY) return `${registry}/${repository}`;
  // `library/evil.example/x` is no official image, and without its beginning would be one of another registry.
  const [, official] = /^library\/([^/]+)$/.exec(repository) ?? [];
  return official ?? repository;
}

/** The whole reference, its registry included. */
export function formatImage(reference: ImageReference): string {
  return 'id' in reference ? reference.id : fullName(reference) + suffix(reference);
}

/** The reference as the engine takes it. It refuses a tag beside a digest in places; the digest alone says all. */
export function engineName(reference: ImageReference): string {
  if ('id' in reference) return reference.id;
  const { digest, tag } = reference;
  return familiarName(reference) + (digest === undefined ? `:${tag}` : `@${digest}`);
}

export function suffix({ tag, digest }: Pick<NamedImage, 'tag' | 'digest'>): string {
  return (tag === undefined ? '' : `:${tag}`) + (digest === undefined ? '' : `@${digest}`);
}
