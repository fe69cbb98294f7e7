import { familiarName, fullName, type NamedImage, suffix } from './image-reference.ts';

/** The setting that the messages name. */
export const ALLOWED_IMAGES_SETTING = 'HARRIER_AGENT_ALLOWED_IMAGES';

/** What an image must be; undefined: anything, or nothing, will do. */
interface Rule {
  name: RegExp;
  tag: RegExp | undefined;
  digest: RegExp | undefined;
}

/**
 * Which images this agent runs, whatever it is told. A pattern is written like a reference, and `*` stands for any
 * characters of its name, its tag or its digest: `python:3.*`, `ghcr.io/acme/*`, `*`. The name is held against that which
 * people write (`python`) and that with its registry (`docker.io/library/python`). A pattern with neither tag nor digest
 * allows all of them. One with a tag alone allows what the tag names, and no digest: the digest alone would decide which
 * image it is, so that whoever names one must show that it is the tag's; see `tagDenied`.
 */
export class ImagePolicy {
  readonly #patterns: readonly string[];
  readonly #rules: readonly Rule[];

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
    if (this.#rules.some((rule) => allows(rule, reference))) return undefined;
    return `the image ${fullName(reference)}${suffix(reference)} is not allowed on this agent: ${this.rule}`;
  }

  /** Like `denied`, for a reference with tag and digest of which it is known that the tag has named the digest. */
  tagDenied(reference: NamedImage): string | undefined {
    const denial = this.denied(reference);
    if (denial === undefined || reference.tag === undefined) return denial;
    return this.denied({ ...reference, digest: undefined }) === undefined ? undefined : denial;
  }

  /** The rule in force, for messages. */
  get rule(): string {
    if (this.closed) return `${ALLOWED_IMAGES_SETTING} is empty, which allows none`;
    return `${ALLOWED_IMAGES_SETTING} allows ${this.#patterns.join(', ')}`;
  }
}

function allows(rule: Rule, reference: NamedImage): boolean {
  const { tag, digest } = reference;
  if (![familiarName(reference), fullName(reference)].some((name) => rule.name.test(name))) return false;
  if (rule.tag !== undefined && (tag === undefined || !rule.tag.test(tag))) return false;
  if (rule.digest !== undefined) return digest !== undefined && rule.digest.test(digest);
  return rule.tag === undefined || digest === undefined;
}

function ruleOf(pattern: string): Rule {
  const at = pattern.indexOf('@');
  const named = at < 0 ? pattern : pattern.slice(0, at);
  const colon = named.lastIndexOf(':');
  const hasTag = colon > named.lastIndexOf('/');
  return {
    name: expression(hasTag ? named.slice(0, colon) : named),
    tag: hasTag ? expression(named.slice(colon + 1)) : undefined,
    digest: at < 0 ? undefined : expression(pattern.slice(at + 1)),
  };
}

function expression(pattern: string): RegExp {
  const parts = pattern.split('*').map((part) => part.replace(/[\\^$.+?()[\]{}|]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`);
}
