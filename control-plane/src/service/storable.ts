import { HarrierError } from '@harrier/shared';

/**
 * For decoding what is stored: what was accepted once, by whatever version, can be read for ever. As deep as bodies of
 * requests in JSON may be, each level two messages.
 */
export const STORED = { recursionLimit: 250 };

/** PostgreSQL's text cannot hold NUL. */
export function storable(text: string): string {
  return text.replaceAll('\0', '\u{fffd}');
}

/** @throws HarrierError invalid_argument that names the field, for a text with NUL: what neither rows nor processes can take. */
export function refuseNul(field: string, text: string): void {
  if (text.includes('\0')) throw new HarrierError('invalid_argument', `${field} cannot contain NUL`, { field });
}
