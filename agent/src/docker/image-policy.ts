import { familiarName, fullName, type NamedImage, suffix } from './image-reference.ts';

/** The setting that the messages name. */
export const ALLOWED_IMAGES_SETTING = 'HARRIER_AGENT_ALLOWED_IMAGES';

/**
 * Which images this agent runs, whatever it is told. A pattern is the text of a reference where `*` stands for any
 * characters: `python:3.*`, `ghcr.io/acme/*`, `*`. It is held against the name as people write it (`python:3.12`) and
 * with its registry (`docker.io/library/python:3.12`); one without a tag allows every tag and digest.
 */
export class ImagePolicy {
  readonly #patterns: readonly string[];
  readonly #rules: readonly RegExp[];

  constructor(patterns: readonly string[]) {
    this.#patterns = patterns;
    this.#rules = patterns.map(ruleOf);
  }

  /** Nothing is allowed at all. */
  get closed(): boolean {
    return this.#patterns.length === 0;
  }

  /** @returns why the image is denied, with the rule; undefined when it is allowed */
  denied(reference: NamedImage): string | undefined {
    const names = [familiarName(reference), fullName(reference)];
    const { tag, digest } = reference;
    // A lock has tag and digest; the operator may have written either.
    const endings = new Set([
      suffix(reference),
      suffix({ tag, digest: undefined }),
      suffix({ tag: undefined, digest }),
    ]);
    const forms = names.flatMap((name) => [...endings].map((ending) => name + ending));
    if (this.#rules.some((rule) => forms.some((form) => rule.test(form)))) return undefined;
    return `the image ${fullName(reference)}${suffix(reference)} is not allowed on this agent: ${this.rule}`;
  }

  /** The rule in force, for messages. */
  get rule(): string {
    if (this.closed) return `${ALLOWED_IMAGES_SETTING} is empty, which allows none`;
    return `${ALLOWED_IMAGES_SETTING} allows ${this.#patterns.join(', ')}`;
  }
}

function ruleOf(pattern: string): RegExp {
  const text = pattern
    .split('*')
    .map((part) => part.replace(/[\\^$.+?()[\]{}|]/g, '\\$&'))
    .join('.*');
  const hasEnding = pattern.includes('@') || pattern.lastIndexOf(':') > pattern.lastIndexOf('/');
  return new RegExp(`^${text}${hasEnding ? '' : '([:@].*)?'}$`);
}
