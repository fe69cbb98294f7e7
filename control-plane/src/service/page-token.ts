import { HarrierError } from '@harrier/shared';

const DEFAULT_PAGE_SIZE = 50;

export function pageSizeOf(requested: number): number {
  return requested === 0 ? DEFAULT_PAGE_SIZE : requested;
}

/** An opaque token for where a page ended. */
export function encodePageToken(...position: string[]): string {
  return Buffer.from(JSON.stringify(position)).toString('base64url');
}

/**
 * The position in a token, as many texts as `shapes`, each of which must match.
 * @returns undefined for the empty token. @throws HarrierError invalid_argument
 */
export function decodePageToken(token: string, shapes: readonly RegExp[]): string[] | undefined {
  if (token === '') return undefined;
  let position: unknown;
  try {
    position = JSON.parse(Buffer.from(token, 'base64url').toString());
  } catch {
    position = undefined;
  }
  if (
    !Array.isArray(position) ||
    position.length !== shapes.length ||
    !position.every((part, index) => typeof part === 'string' && shapes[index]?.test(part))
  ) {
    throw new HarrierError('invalid_argument', 'page_token is not one that this list has given', {
      field: 'page_token',
    });
  }
  return position as string[];
}

export const UUID_SHAPE = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** Any text that PostgreSQL can hold. */
export const TEXT_SHAPE = /^[^\0]*$/;
