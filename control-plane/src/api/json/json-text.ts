import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { holdsMoreThan, MAX_JSON_VALUES } from '../../service/json-size.ts';
import { findJsonError } from './json-error-position.ts';

/** As deep as protobuf's own recursion limit for messages. */
export const MAX_JSON_DEPTH = 100;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of a body. Throws `invalid_argument` when it is not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw invalid('body: not valid UTF-8');
  }
}

/** Parses JSON text. Throws `invalid_argument` with line and column when it is malformed, and when it nests too deeply. */
export function parseJson(text: string): JsonValue {
  if (nestsDeeperThan(text, MAX_JSON_DEPTH)) throw tooDeep();
  if (holdsMoreThan(MAX_JSON_VALUES, text, ':')) {
    throw invalid(`body: more than ${MAX_JSON_VALUES} objects, arrays and members of objects`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw malformed(text, error);
  }
}

/** The same, and throws unless it is an object. */
export function parseJsonObject(text: string): JsonObject {
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`body: expected a JSON object, got ${kindOf(value)}`);
  }
  return value;
}

export function tooDeep(): ConnectError {
  return invalid(`body: JSON nests deeper than ${MAX_JSON_DEPTH} levels`);
}

function malformed(text: string, error: unknown): Error {
  const found = findJsonError(text);
  // The two disagree only if one of them has a defect; then the engine's word is all there is.
  if (found === undefined) return invalid(`body: malformed JSON: ${(error as Error).message}`);
  return invalid(`body: malformed JSON at line ${found.line}, column ${found.column}: ${found.problem}`);
}

function invalid(message: string): ConnectError {
  return new ConnectError(message, Code.InvalidArgument);
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Looks at brackets outside strings only; says nothing about whether the text is JSON. */
export function nestsDeeperThan(text: string, levels: number): boolean {
  // Too short to hold that many pairs.
  if (text.length <= 2 * levels) return false;
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (inString) {
      if (char === BACKSLASH) i++;
      else if (char === QUOTE) inString = false;
    } else if (char === QUOTE) inString = true;
    else if (char === OPEN_BRACKET || char === OPEN_BRACE) {
      if (++depth > levels) return true;
    } else if (char === CLOSE_BRACKET || char === CLOSE_BRACE) depth--;
  }
  return false;
}
