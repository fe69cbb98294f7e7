import type { HttpRequest } from '../http-types.ts';
import { unsupported } from './refusal.ts';

/** Refuses with 415 what is declared to be something else than JSON in UTF-8; a body without a declaration is taken as JSON. */
export function requireJsonContent(request: HttpRequest): void {
  const { 'content-type': type, 'content-encoding': encoding } = request.headers;
  if (encoding !== undefined && encoding !== 'identity') {
    throw unsupported(`content-encoding: ${JSON.stringify(encoding)} is not supported here`);
  }
  if (type === undefined || type === 'application/json') return;
  if (/^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i.test(type)) return;
  throw unsupported(`content-type: expected "application/json", got ${JSON.stringify(type)}`);
}
