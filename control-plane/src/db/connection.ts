import postgres from 'postgres';
import type { Sql } from './sql.ts';

/** How to reach the database; plain data, so that a worker thread can be told. */
export type ConnectionTarget = { url: string } | { socketDirectory: string; user: string; database: string };

const COMMON = {
  onnotice: () => undefined,
  types: { bigint: { to: 20, from: [20], serialize: String, parse: Number } },
  connection: { application_name: 'harrier' },
};

/** A pool of at most `max` connections, opened when they are needed. */
export function connect(target: ConnectionTarget, max: number): Sql {
  if ('url' in target) return postgres(target.url, { ...COMMON, max });
  const { socketDirectory, user, database } = target;
  return postgres({ ...COMMON, max, path: `${socketDirectory}/.s.PGSQL.5432`, user, database });
}
