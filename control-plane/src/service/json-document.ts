import { HarrierError, messageOf } from '@harrier/shared';

/** Deepest nesting of an input or output: recursive readers on the way must not run out of stack. */
const MAX_DEPTH = 100;

/**
 * Parses JSON text that must be an object. Only to check it: the text itself is what travels on.
 * @throws HarrierError invalid_argument naming `field`.
 */
export function parseJsonObject(text: string, field: string): Record<string, unknown> {
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
  if (isDeeperThan(value, MAX_DEPTH)) {
    throw new HarrierError('invalid_argument', `${field} is nested more than ${MAX_DEPTH} levels deep`, { field });
  }
  return value as Record<string, unknown>;
}

/** Whether a parsed document has objects or arrays in one another beyond so many levels. */
export function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (levels === 0) return true;
  for (const child of Object.values(value)) {
    if (typeof child === 'object' && child !== null && isDeeperThan(child, levels - 1)) return true;
  }
  return false;
}
