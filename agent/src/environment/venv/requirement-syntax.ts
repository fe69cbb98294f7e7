/** A pin of a lock: one version of a package, and what its files must be. */
export interface Pin {
  /** With its extras, without blanks. */
  name: string;
  version: string;
  /** With its semicolon, empty for none. */
  marker: string;
  /** `sha256:…` */
  hashes: string[];
}

/** What a reader of lines could take for the end of one, or expand. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
const UNCLEAN = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u2028\u2029$\\]/;

// Sticky, and each a run of one class of characters: so reading takes a step for each character, whatever is written.
const BLANKS = /[ \t]*/y;
const NAME = /[\w.-]*/y;
const EXTRAS = /\[[\w \t.,-]*/y;
const SPECIFIER = /[\w \t.<>=!~,*+-]*/y;
const VERSION = /[\w.!+-]*/y;
const MARKER = /[\w \t.'"<>=!~(),+*-]*/y;
const DIGEST = /[0-9a-fA-F]*/y;
const HASH_NAMES = ['sha256', 'sha384', 'sha512'];

/** PEP 508 without URLs: name, extras, versions, marker. */
export function isRequirement(text: string): boolean {
  if (UNCLEAN.test(text)) return false;
  const reader = new Reader(text);
  if (reader.name() === undefined) return false;
  reader.run(BLANKS);
  if (reader.sees('-')) return false;
  const open = reader.take('(');
  if (hasOption(reader.run(SPECIFIER))) return false;
  if (open && !reader.take(')')) return false;
  return reader.marker() !== undefined && reader.ended;
}

/** `name==version`, with a marker and hashes; undefined for what is none. */
export function parsePin(text: string): Pin | undefined {
  if (UNCLEAN.test(text)) return undefined;
  const reader = new Reader(text);
  const name = reader.name();
  reader.run(BLANKS);
  if (name === undefined || !reader.take('==')) return undefined;
  reader.run(BLANKS);
  const version = reader.run(VERSION);
  // `===` compares texts, and is none of a version.
  if (version === '' || version.startsWith('-')) return undefined;
  const marker = reader.marker();
  const hashes: string[] = [];
  while (marker !== undefined && !reader.ended) {
    reader.run(BLANKS);
    const hash = reader.hash();
    if (hash === undefined) return undefined;
    hashes.push(hash);
  }
  return marker === undefined ? undefined : { name, version, marker, hashes };
}

/** Goes through a text once, from its beginning to its end. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get ended(): boolean {
    return this.#at === this.#text.length;
  }

  sees(text: string): boolean {
    return this.#text.startsWith(text, this.#at);
  }

  take(text: string): boolean {
    if (!this.sees(text)) return false;
    this.#at += text.length;
    return true;
  }

  /** What matches a sticky expression here. */
  run(characters: RegExp): string {
    characters.lastIndex = this.#at;
    const [found = ''] = characters.exec(this.#text) ?? [];
    this.#at += found.length;
    return found;
  }

  /** Name and extras, without blanks. */
  name(): string | undefined {
    const name = this.run(NAME);
    if (!isAlphanumeric(name[0]) || !isAlphanumeric(name.at(-1))) return undefined;
    const end = this.#at;
    this.run(BLANKS);
    if (!this.sees('[')) {
      this.#at = end;
      return name;
    }
    const extras = this.run(EXTRAS);
    return this.take(']') ? `${name}${extras.replace(/[ \t]/g, '')}]` : undefined;
  }

  /** Up to the first option, if there is one; empty where none begins, undefined where an option stands in its place. */
  marker(): string | undefined {
    const before = this.#at;
    const blanks = this.run(BLANKS);
    if (!this.take(';')) {
      this.#at = before;
      return '';
    }
    const text = this.run(MARKER);
    const option = optionIn(text);
    if (option >= 0) this.#at -= text.length - option;
    const marker = `${blanks};${option >= 0 ? text.slice(0, option) : text}`.trimEnd();
    return /^[ \t]*;[ \t]*$/.test(marker) ? undefined : marker;
  }

  /** `--hash=sha256:…`, or with a blank for the equals sign. */
  hash(): string | undefined {
    if (!/[ \t]/.test(this.#text[this.#at - 1] ?? '') || !this.take('--hash')) return undefined;
    if (!this.take('=') && !this.take(' ')) return undefined;
    for (const name of HASH_NAMES) {
      if (!this.take(`${name}:`)) continue;
      const digest = this.run(DIGEST);
      return digest === '' ? undefined : `${name}:${digest}`;
    }
    return undefined;
  }
}

/** Where a blank and the minus of an option stand; -1: nowhere. */
function optionIn(text: string): number {
  return text.search(/[ \t]-/);
}

function hasOption(text: string): boolean {
  return optionIn(text) >= 0;
}

function isAlphanumeric(character: string | undefined): boolean {
  return character !== undefined && /^[A-Za-z0-9]$/.test(character);
}
