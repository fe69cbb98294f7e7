import {
  type CelInput,
  type CelUint,
  type CelValue,
  celList,
  celMap,
  isCelError,
  isCelList,
  isCelMap,
  isCelUint,
  type plan,
} from '@bufbuild/cel';
import { toJson } from '@bufbuild/protobuf';
import { isReflectMessage } from '@bufbuild/protobuf/reflect';

/** A JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The message says what is wrong, with the expression and the value. */
export class ExpressionError extends Error {}

/**
 * A JSON value as expressions see it. It costs the same however large the value is: what is within is converted when it is looked
 * at. Whole numbers become CEL's int, so that they can be counted with.
 */
export function celOf(value: Json): CelInput {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (typeof value !== 'object' || value === null) return value;
  const seen = Array.isArray(value) ? celList(new Proxy(value, LIST) as CelInput[]) : celMap(new SeenObject(value));
  return Object.assign(seen, { [SOURCE]: value });
}

/** Of what an expression sees: the value itself, which need not be made again when it is what the expression makes. */
const SOURCE = Symbol('source');

const LIST: ProxyHandler<Json[]> = {
  get: (list, property) => {
    // By an iterator, many items are converted without a trap for each of them.
    if (property === 'values') return () => list.values().map((item) => celOf(item));
    const value: unknown = Reflect.get(list, property);
    return typeof property === 'symbol' || property === 'length' ? value : celOf(value as Json);
  },
};

/** The members of an object. */
class SeenObject implements ReadonlyMap<bigint | string | boolean | CelUint, CelInput> {
  readonly #value: { readonly [key: string]: Json };

  constructor(value: { readonly [key: string]: Json }) {
    this.#value = value;
  }

  get size(): number {
    return Object.keys(this.#value).length;
  }

  get(key: unknown): CelInput | undefined {
    if (typeof key !== 'string' || !Object.hasOwn(this.#value, key)) return undefined;
    const value = this.#value[key];
    return value === undefined ? undefined : celOf(value);
  }

  has(key: unknown): boolean {
    return typeof key === 'string' && Object.hasOwn(this.#value, key);
  }

  forEach(work: (value: CelInput, key: string, map: this) => void): void {
    for (const [key, value] of this.entries()) work(value, key, this);
  }

  keys(): MapIterator<string> {
    return Object.keys(this.#value).values();
  }

  values(): MapIterator<CelInput> {
    return Object.values(this.#value)
      .values()
      .map((value) => celOf(value));
  }

  entries(): MapIterator<[string, CelInput]> {
    return Object.entries(this.#value)
      .values()
      .map(([key, value]) => [key, celOf(value)]);
  }

  [Symbol.iterator](): MapIterator<[string, CelInput]> {
    return this.entries();
  }
}

/**
 * What an expression has made.
 * @param count is told how long it is as JSON, at least. @throws ExpressionError when it is an error, or of a kind that JSON does not know
 */
export function jsonOf(value: CelValue | ReturnType<ReturnType<typeof plan>>, count: (chars: number) => void): Json {
  if (isCelError(value)) throw new ExpressionError(value.message);
  if (isCelList(value) || isCelMap(value)) {
    const { [SOURCE]: source } = value as { [SOURCE]?: Json };
    if (source !== undefined) {
      countIn(source, count);
      return source;
    }
    if (isCelList(value)) return [...value].map((item) => jsonOf(item, count));
    const entries = [...value].map(([key, child]): [string, Json] => {
      const name = isCelUint(key) ? `${key.value}` : `${key}`;
      count(name.length);
      return [name, jsonOf(child, count)];
    });
    return Object.fromEntries(entries);
  }
  count(typeof value === 'string' ? value.length : SHORTEST);
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'bigint') return numberOf(value);
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value;
    throw new ExpressionError(`it is ${value}, which JSON does not know`);
  }
  if (isCelUint(value)) return numberOf(value.value);
  if (isReflectMessage(value)) return toJson(value.desc, value.message) as Json;
  throw new ExpressionError('its value is of a kind that JSON does not know');
}

/** A digit and a comma. */
const SHORTEST = 2;

function countIn(value: Json, count: (chars: number) => void): void {
  if (typeof value === 'string') count(value.length);
  else if (Array.isArray(value)) {
    count(SHORTEST);
    for (const item of value) countIn(item, count);
  } else if (typeof value === 'object' && value !== null) {
    count(SHORTEST);
    for (const [key, child] of Object.entries(value)) {
      count(key.length);
      countIn(child, count);
    }
  } else count(SHORTEST);
}

/** Larger whole numbers are not exact in JSON as most read it. */
function numberOf(value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new ExpressionError(`${value} is too large to be exact in JSON`);
  return number;
}
