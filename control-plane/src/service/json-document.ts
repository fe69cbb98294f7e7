import type { JsonObject } from '@bufbuild/protobuf';
import { type DocumentFault, documentFault, HarrierError, messageOf } from '@harrier/shared';
import { holdsMoreThan, MAX_JSON_VALUES } from './json-size.ts';

/** Deepest nesting of an input as text: recursive readers on the way must not run out of stack. */
const MAX_TEXT_DEPTH = 100;

/**
 * Parses JSON text that must be an object, nested at most 100 levels deep. Only to check it: the text itself is what travels on.
 * @throws HarrierError invalid_argument naming `field`.
 */
export function parseJsonObject(text: string, field: string): Record<string, unknown> {
  if (holdsMoreThan(MAX_JSON_VALUES, text, ':')) {
    const problem = `${field} has more than ${MAX_JSON_VALUES} objects, arrays and members of objects`;
    throw new HarrierError('invalid_argument', problem, { field });
  }
  const value = parseAnyJsonObject(text, field);
  if (isDeeperThan(value, MAX_TEXT_DEPTH)) {
    throw new HarrierError('invalid_argument', `${field} is nested more than ${MAX_TEXT_DEPTH} levels deep`, { field });
  }
  return value;
}

/** The same, however deep it is nested. */
export function parseAnyJsonObject(text: string, field: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HarrierError('invalid_argument', `${field} is not JSON: ${messageOf(cause)}`, { field, cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const kind = value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`;
    throw new HarrierError('invalid_argument', `${field} must be a JSON object, not ${kind}`, { field });
  }
  return value as Record<string, unknown>;
}

/** Whether a parsed document has objects or arrays in one another beyond so many levels. */
function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (levels === 0) return true;
  for (const child of Object.values(value)) {
    if (typeof child === 'object' && child !== null && isDeeperThan(child, levels - 1)) return true;
  }
  return false;
}

/**
 * Checks that an input that came as a structure can be written as JSON, which has no NaN and no infinite numbers, and that it
 * can be told again as one, in a schedule.
 * @throws HarrierError invalid_argument naming the place below `field`
 */
export function checkStructure(document: JsonObject, field: string): void {
  const fault = documentFault(document);
  if (fault === undefined) return;
  const place = `${field}${fault.path}`;
  throw new HarrierError('invalid_argument', `${place}: ${fault.problem}`, { field: place });
}

/**
 * A document as it can be shown: in the place of one that cannot be a `google.protobuf.Struct` for every caller, an object
 * that says so. What was stored by a version that did not look must not take away the message, or the list, that it stands in.
 */
export function showable(document: JsonObject): JsonObject {
  const fault = documentFault(document);
  return fault === undefined ? document : { $comment: `not shown: ${describeFault(fault)}` };
}

/** Whether a document can be a `google.protobuf.Struct` for every caller. */
export function isShowable(document: JsonObject): boolean {
  return documentFault(document) === undefined;
}

/** For example `$.a[3]: nested deeper than 32 levels`. */
export function describeFault({ path, problem }: DocumentFault): string {
  return `$${path}: ${problem}`;
}
