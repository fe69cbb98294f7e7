import { ENVIRONMENT_BOUNDS, withoutCredentials } from '@harrier/shared';

/** What a URL parser would change, or read in two ways: encoded slashes, backslashes, control characters. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
const AMBIGUOUS = /[\u0000-\u0020\u007f-\u00a0\u2028\u2029\\]|%(?:2f|5c|00|25)/i;

/**
 * A URL as everybody reads it: scheme and host in lower case, no dot segments however they are written, no trailing slash.
 * All comparing and all use goes by this text.
 * @returns undefined for what is no URL of these schemes, has a query or a fragment, is longer than anybody's, or could be read in two ways
 */
export function plainUrl(text: string, schemes: readonly string[] = ['http:', 'https:']): string | undefined {
  if (text.length > ENVIRONMENT_BOUNDS.urlChars) return undefined;
  if (AMBIGUOUS.test(text) || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  if (!schemes.includes(url.protocol) || url.search !== '' || url.hash !== '' || /[?#]/.test(text)) return undefined;
  if (url.protocol === 'file:' && url.host !== '') return undefined;
  let end = url.href.length;
  while (url.href[end - 1] === '/') end--;
  return url.href.slice(0, end);
}

/** Whether a plain URL is another one or below it: `https://a/b` is within `https://a`, `https://a.evil` is not. */
export function isWithin(url: string, scope: string): boolean {
  return url === scope || url.startsWith(`${scope}/`);
}

/** A channel's URL as everybody may read it: without user name, password and token. Plain URLs only. */
export function openUrl(url: string): string {
  const open = new URL(url);
  open.username = '';
  open.password = '';
  return (plainUrl(open.href, [open.protocol]) ?? '').replace(/^([^/]*\/\/[^/]*)\/t\/[^/]+/, '$1');
}

/** For messages and logs: without user names, passwords, and the tokens that conda has in paths (`/t/TOKEN/`). */
export function shownUrl(url: string): string {
  return withoutCredentials(url).replace(/\/t\/[^/]+/g, '/t/…');
}
