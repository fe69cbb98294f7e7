/** For messages: an address without what may be secret in it, that is user, password, query and fragment. */
export function withoutCredentials(url: string): string {
  return url.replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/is, '$1…@').replace(/[?#].*$/s, '');
}

/** Whether a text has the form of an API key or a join token, which somebody may give where a file's name is wanted. */
export function isSecret(text: string): boolean {
  return /^h[jk]_[\w-]{43}$/.test(text);
}
