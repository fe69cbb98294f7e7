import { isMap, isScalar, isSeq, type Scalar, YAMLMap } from 'yaml';
import { messageOf } from '../errors.ts';
import { parseBytes, parseDurationMs } from '../units.ts';
import type { Position } from './problem.ts';
import type { YamlSource } from './yaml-source.ts';

/**
 * Reads the fields of one YAML map. Whatever is wrong is reported to the source, with its place, and reads as absent;
 * `finish` reports the keys that nobody asked for.
 */
export class MapReader {
  readonly node: YAMLMap;
  /** For people: `modules[1].limits`. */
  readonly path: string;
  readonly #source: YamlSource;
  readonly #asked = new Set<string>();

  constructor(source: YamlSource, node: YAMLMap, path: string) {
    this.#source = source;
    this.node = node;
    this.path = path;
  }

  /** Where a field stands: its value, or the map when it has none. */
  positionOf(name: string): Position {
    return this.#source.positionOf(this.node.get(name, true) ?? this.node);
  }

  report(name: string, message: string): void {
    this.#source.report(this.node.get(name, true) ?? this.node, `${this.#pathOf(name)}: ${message}`);
  }

  has(name: string): boolean {
    return this.#take(name) !== undefined;
  }

  text(name: string): string | undefined {
    const scalar = this.#scalar(name, 'a text');
    if (scalar === undefined || typeof scalar.value === 'string') return scalar?.value as string | undefined;
    return this.#refuse(name, `must be a text; put it in quotes: "${scalar.source ?? String(scalar.value)}"`);
  }

  /** One of the names, as what it stands for. */
  oneOf<T>(name: string, known: Readonly<Record<string, T>>): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    if (Object.hasOwn(known, text)) return known[text];
    return this.#refuse(name, `must be one of ${Object.keys(known).join(', ')}, not "${text}"`);
  }

  flag(name: string): boolean | undefined {
    const scalar = this.#scalar(name, 'true or false');
    if (scalar === undefined || typeof scalar.value === 'boolean') return scalar?.value as boolean | undefined;
    return this.#refuse(name, `must be true or false, not ${show(scalar)}`);
  }

  number(name: string): number | undefined {
    const scalar = this.#scalar(name, 'a number');
    if (scalar === undefined) return undefined;
    if (typeof scalar.value === 'number' && Number.isFinite(scalar.value)) return scalar.value;
    return this.#refuse(name, `must be a number, not ${show(scalar)}`);
  }

  integer(name: string): number | undefined {
    const value = this.number(name);
    // What does not fit an int32 of the schema is refused here; the schema's own rules have closer bounds.
    if (value === undefined || (Number.isInteger(value) && Math.abs(value) < 2 ** 31)) return value;
    return this.#refuse(name, `must be a whole number, not ${value}`);
  }

  /** `268435456` or `256MiB`. */
  bytes(name: string): bigint | undefined {
    const scalar = this.#scalar(name, 'a size');
    if (scalar === undefined) return undefined;
    const bytes = parseBytes(String(scalar.value));
    if (bytes !== undefined) return BigInt(bytes);
    return this.#refuse(name, `must be bytes like 268435456 or 256MiB, not ${show(scalar)}`);
  }

  /** `90` (seconds), `90s`, `5m`. @returns milliseconds */
  durationMs(name: string): number | undefined {
    const scalar = this.#scalar(name, 'a duration');
    if (scalar === undefined) return undefined;
    const ms = parseDurationMs(String(scalar.value));
    return ms ?? this.#refuse(name, `must be seconds, or a duration like 500ms, 90s or 5m, not ${show(scalar)}`);
  }

  texts(name: string): string[] | undefined {
    return this.parsedTexts(name, (text) => text);
  }

  /** A list of texts, as what `parse` makes of each; what it throws is the problem of that item. */
  parsedTexts<T>(name: string, parse: (text: string) => T): T[] | undefined {
    const node = this.#take(name);
    if (node === undefined) return undefined;
    if (!isSeq(node)) return this.#refuse(name, 'must be a list of texts');
    return node.items.flatMap((item, index) => {
      const path = `${this.#pathOf(name)}[${index}]`;
      const scalar = this.#source.resolve(item);
      try {
        if (isScalar(scalar) && typeof scalar.value === 'string') return [parse(scalar.value)];
        this.#source.report(item, `${path}: must be a text; put it in quotes`);
      } catch (error) {
        this.#source.report(item, `${path}: ${messageOf(error)}`);
      }
      return [];
    });
  }

  map(name: string): MapReader | undefined {
    const node = this.#take(name);
    if (node === undefined) return undefined;
    if (isMap(node)) return new MapReader(this.#source, node, this.#pathOf(name));
    return this.#refuse(name, 'must be a map');
  }

  /** The maps of a list. */
  maps(name: string): MapReader[] | undefined {
    const node = this.#take(name);
    if (node === undefined) return undefined;
    if (!isSeq(node)) return this.#refuse(name, 'must be a list of maps');
    return node.items.flatMap((item, index) => {
      const path = `${this.#pathOf(name)}[${index}]`;
      const map = this.#source.resolve(item);
      if (isMap(map)) return [new MapReader(this.#source, map, path)];
      this.#source.report(item, `${path}: must be a map`);
      return [];
    });
  }

  /** The maps of a map, by key; an empty value is a map without fields. */
  mapsByKey(name: string): ReadonlyMap<string, MapReader> | undefined {
    const fields = this.map(name);
    if (fields === undefined) return undefined;
    const maps = new Map<string, MapReader>();
    for (const { key } of fields.node.items) {
      const text = String(isScalar(key) ? key.value : key);
      const path = `${fields.path}.${text}`;
      maps.set(text, fields.map(text) ?? new MapReader(this.#source, new YAMLMap(), path));
    }
    return maps;
  }

  /** The texts of a map by key, numbers and flags as they are written; null where there is no value. */
  textsByKey(name: string): Record<string, string | null> | undefined {
    const fields = this.map(name);
    if (fields === undefined) return undefined;
    const texts: Record<string, string | null> = {};
    for (const { key } of fields.node.items) {
      const text = String(isScalar(key) ? key.value : key);
      const scalar = fields.#scalar(text, 'a text');
      if (scalar !== undefined) texts[text] = typeof scalar.value === 'string' ? scalar.value : (scalar.source ?? '');
      else if (fields.#isEmpty(text)) texts[text] = null;
    }
    return texts;
  }

  /** A map of anything that JSON can hold. */
  document(name: string): Record<string, unknown> | undefined {
    const node = this.#take(name);
    if (node === undefined) return undefined;
    if (!isMap(node)) return this.#refuse(name, 'must be a map');
    try {
      return node.toJS(this.#source.document) as Record<string, unknown>;
    } catch (error) {
      // Too many aliases in one another, which would fill the memory.
      return this.#refuse(name, messageOf(error));
    }
  }

  /** A text, or a map with one key; the key, and the map below it. */
  choice(name: string): { key: string; node: unknown } | undefined {
    const node = this.#take(name);
    if (node === undefined) return undefined;
    if (isScalar(node) && typeof node.value === 'string') return { key: node.value, node: undefined };
    const only = isMap(node) && node.items.length === 1 ? node.items[0] : undefined;
    if (only === undefined) return this.#refuse(name, 'must be a name, or a map with one key');
    return { key: String(isScalar(only.key) ? only.key.value : only.key), node: this.#source.resolve(only.value) };
  }

  /** The map below the key of a choice; undefined when it stands alone. */
  choiceSettings(name: string): MapReader | undefined {
    const node = this.#take(name);
    const only = isMap(node) ? node.items[0] : undefined;
    const below = this.#source.resolve(only?.value);
    if (only === undefined || below === undefined || (isScalar(below) && below.value === null)) return undefined;
    const path = `${this.#pathOf(name)}.${String(isScalar(only.key) ? only.key.value : only.key)}`;
    if (isMap(below)) return new MapReader(this.#source, below, path);
    this.#source.report(below, `${path}: must be a map`);
    return undefined;
  }

  isText(name: string): boolean {
    const node = this.#take(name);
    return isScalar(node) && typeof node.value === 'string';
  }

  /** Reports the keys that are not fields. */
  finish(): void {
    for (const { key } of this.node.items) {
      const name = isScalar(key) ? String(key.value) : String(key);
      if (!this.#asked.has(name)) {
        const known = [...this.#asked].toSorted().join(', ');
        this.#source.report(
          key,
          `${this.path === '' ? '' : `${this.path}: `}there is no field "${name}"; there are ${known}`,
        );
      }
    }
  }

  /** The value of a field; an empty one is as good as none. */
  #take(name: string): unknown {
    this.#asked.add(name);
    const node = this.#source.resolve(this.node.get(name, true));
    return node === undefined || (isScalar(node) && node.value === null) ? undefined : node;
  }

  #isEmpty(name: string): boolean {
    const node = this.#source.resolve(this.node.get(name, true));
    return node === undefined || node === null || (isScalar(node) && node.value === null);
  }

  #scalar(name: string, wanted: string): Scalar | undefined {
    const node = this.#take(name);
    if (node === undefined || isScalar(node)) return node;
    return this.#refuse(name, `must be ${wanted}`);
  }

  #refuse(name: string, message: string): undefined {
    this.report(name, message);
    return undefined;
  }

  #pathOf(name: string): string {
    return this.path === '' ? name : `${this.path}.${name}`;
  }
}

/** The fields of a file; undefined, and a problem with these words, when it is no map. */
export function rootOf(source: YamlSource, otherwise: string): MapReader | undefined {
  const { contents } = source.document;
  if (isMap(contents)) return new MapReader(source, contents, '');
  source.report(contents, otherwise);
  return undefined;
}

function show(scalar: Scalar): string {
  return `"${scalar.source ?? String(scalar.value)}"`;
}
