// A function's result as JSON text, or what JSON.stringify would drop, change or refuse in it, with its path.
import { types } from 'node:util';

/** `MAX_DOCUMENT_DEPTH` of `shared/src/document-fault.ts`, which says why. */
const MAX_DEPTH = 32;
const IDENTIFIER = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;

/** The value cannot be JSON; the message names the path and why. */
export class NotJson extends Error {}

/**
 * JSON text of an object. Every value is checked while it is written: what was asked twice, as by `toJSON` or a getter, could
 * answer differently the second time.
 * @throws NotJson for the first fault in document order; whatever the value's own code throws
 */
export function encodeResult(root) {
  /** Where the objects that are being written are; an object that is there twice is first there once. */
  const places = new Map();
  return JSON.stringify(root, function checked(key, value) {
    const above = places.get(this);
    if (above === undefined && (typeof value !== 'object' || value === null || Array.isArray(value))) {
      throw new NotJson(`$: the handler returned ${nameOf(value)}, not an object`);
    }
    const path = above === undefined ? '$' : pathOf(above.path, this, key);
    const fault = above !== undefined && !key.isWellFormed() ? surrogateIn(key) : faultOf(value, above);
    if (fault !== undefined) throw new NotJson(`${path.slice(0, 200)}: ${fault}`);
    if (typeof value === 'object' && value !== null)
      places.set(value, { value, path, depth: depthBelow(above), above });
    return value;
  });
}

function pathOf(path, holder, key) {
  if (Array.isArray(holder)) return `${path}[${key}]`;
  if (!key.isWellFormed()) return path;
  return path + (IDENTIFIER.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`);
}

function depthBelow(above) {
  return above === undefined ? 0 : above.depth + 1;
}

function faultOf(value, above) {
  switch (typeof value) {
    case 'boolean':
      return undefined;
    case 'string':
      return value.isWellFormed() ? undefined : 'a string with a lone surrogate is not valid Unicode';
    case 'number':
      return Number.isFinite(value) ? undefined : `${value} is not a JSON number`;
    case 'object':
      return value === null ? undefined : faultOfObject(value, above);
    default:
      return `${nameOf(value)} is not a JSON value`;
  }
}

function faultOfObject(value, above) {
  for (let at = above; at !== undefined; at = at.above) if (at.value === value) return 'the value contains itself';
  if (depthBelow(above) >= MAX_DEPTH) return `nested deeper than ${MAX_DEPTH} levels`;
  // Of a Map or a Promise, JSON.stringify would make an empty object; of a boxed number what is in it.
  const isPlain = Object.prototype.toString.call(value) === '[object Object]' && !types.isBoxedPrimitive(value);
  return isPlain || Array.isArray(value) ? undefined : `${nameOf(value)} is not a JSON value`;
}

function surrogateIn(key) {
  return `the key ${JSON.stringify(key)} has a lone surrogate`;
}

function nameOf(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  const type = typeof value;
  return `a value of type ${type === 'object' ? Object.prototype.toString.call(value).slice(8, -1) : type}`;
}
