import { databaseErrorCode } from './database-away.ts';

/**
 * Data that the server can never take: data exceptions, and what is beyond a limit of the program.
 * https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const REFUSED = /^(22|54)\w{3}$/;

/** Why the database will refuse a statement however often it is made; undefined: it may take it another time. */
export function refusedForGood(error: unknown): string | undefined {
  const { code, message, detail } = (error ?? {}) as { code?: unknown; message?: unknown; detail?: unknown };
  if (typeof code !== 'string' || !REFUSED.test(code)) return undefined;
  return typeof detail === 'string' ? `${String(message)} (${detail})` : String(message);
}

/** As things are, the database will never take it: it cannot hold the data, or a constraint (SQLSTATE class 23) is against it. */
export function isRefused(error: unknown): boolean {
  return refusedForGood(error) !== undefined || databaseErrorCode(error).startsWith('23');
}
