import { postgres } from './postgres-driver.ts';
import type { Sql } from './sql.ts';

/** How to reach the database; plain data, so that a worker thread can be told. */
export type ConnectionTarget = { url: string } | { socketDirectory: string; user: string; database: string };

/** Scheme and user, one host, its port, and the rest. */
const URL_PARTS = /^(\w+:\/\/(?:[^@/?]*@)?)([^/?,]*?)(?::(\d+))?((?:[/?].*)?)$/;

/** After a restart of the server everybody is back within a second; the driver's own pauses grow to twenty. */
const MAX_RECONNECT_S = 1;

const COMMON = {
  backoff: (failures: number) =>
    Math.min(MAX_RECONNECT_S, 0.05 * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2),
  onnotice: () => undefined,
  types: { bigint: { to: 20, from: [20], serialize: String, parse: Number } },
  connection: { application_name: 'harrier' },
};

/** A pool of at most `max` connections, opened when they are needed. */
export function connect(target: ConnectionTarget, max: number): Sql {
  if ('url' in target) {
    const { url, place } = readUrl(target.url);
    return postgres(url, { ...COMMON, max, ...place });
  }
  const { socketDirectory, user, database } = target;
  return postgres({ ...COMMON, max, path: socketPath(socketDirectory, ''), user, database });
}

/**
 * What postgres.js does not understand of a URL as libpq reads it: a host that is a directory with unix sockets, and host
 * and port among the parameters, which replace those in front of the path.
 * https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
 */
function readUrl(text: string): { url: string; place: { path?: string; host?: string; port?: number } } {
  const [, before = '', authorityHost = '', authorityPort = '', after = ''] = URL_PARTS.exec(text) ?? [];
  // The platform takes no user without a host; which one does not matter, since `place` goes before it.
  const url = URL.parse(`${before}localhost${after}`);
  // Several hosts, which postgres.js reads itself, or no URL at all, which it refuses.
  if (before === '' || url === null) return { url: text, place: {} };
  const given = { host: url.searchParams.get('host'), port: url.searchParams.get('port') };
  const host = given.host || decodeURIComponent(authorityHost);
  const port = given.port || authorityPort;
  if (given.host === null && given.port === null && !host.startsWith('/')) return { url: text, place: {} };
  // Left in place they would be sent to the server as settings.
  url.searchParams.delete('host');
  url.searchParams.delete('port');
  if (host.startsWith('/')) return { url: url.href, place: { path: socketPath(host, port) } };
  return { url: url.href, place: { ...(host !== '' && { host }), ...(port !== '' && { port: Number(port) }) } };
}

/** Where a server that listens in a directory has its socket; the port only tells servers apart. */
function socketPath(directory: string, port: string): string {
  return `${directory}/.s.PGSQL.${port === '' ? '5432' : port}`;
}
