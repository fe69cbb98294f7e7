import type { Chain } from './expression-names.ts';
import type { Json } from './expression-value.ts';

/** Of a value in an error, or in a line of the log. */
const SHOWN_CHARS = 200;
/** Values that an error tells. */
const MAX_TOLD = 8;

/** A value as JSON, cut. What is cut is not looked at: it may be large. */
export function shown(value: Json): string {
  return cut(jsonFrom(value, SHOWN_CHARS + 1));
}

/** A text, cut; never to half of a character. */
export function cut(text: string, chars = SHOWN_CHARS): string {
  return text.length > chars ? `${text.slice(0, chars).toWellFormed()}…` : text;
}

/** For example `nodes.a.output.score is "high"`: what an expression reads, of what is not there that in which it is not. */
export function shownValues(bindings: Readonly<Record<string, Json>>, chains: readonly Chain[]): string {
  const told = new Map<string, string>();
  for (const chain of chains) {
    if (told.size === MAX_TOLD) break;
    let name = '';
    let at: Json = bindings;
    for (const part of chain) {
      const next = partOf(at, part);
      if (next === undefined) break;
      at = next;
      name += name === '' ? part : selector(part);
    }
    if (name !== '' && !told.has(name)) told.set(name, `${name} is ${shown(at)}`);
  }
  return [...told.values()].join(', ');
}

function partOf(value: Json, part: string | number): Json | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value) !== (typeof part === 'number'))
    return undefined;
  return Object.hasOwn(value, part) ? (value as Record<string, Json>)[part] : undefined;
}

function selector(part: string | number): string {
  return typeof part === 'string' && /^[A-Za-z_]\w*$/.test(part) ? `.${part}` : `[${JSON.stringify(part)}]`;
}

/** @returns the whole text, or more than so many characters, of which as many are right */
function jsonFrom(value: Json, chars: number): string {
  // A closing quote that is too early is beyond them.
  if (typeof value === 'string') return JSON.stringify(value.slice(0, chars));
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (chars <= 0) return '…';
  let text = '';
  const add = (name: string, child: Json): boolean => {
    text += text === '' ? name : `,${name}`;
    // A level takes at least the one character of its bracket: no more of them are looked into than are shown.
    text += jsonFrom(child, Math.max(0, chars - 1 - text.length));
    return text.length >= chars;
  };
  if (Array.isArray(value)) {
    value.some((child) => add('', child));
    return `[${text}]`;
  }
  Object.keys(value).some((key) => add(`${JSON.stringify(key.slice(0, chars))}:`, value[key] ?? null));
  return `{${text}}`;
}
