import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import { type ConnectionTarget, connect } from './connection.ts';
import { startEmbeddedPostgres } from './embedded-postgres.ts';
import { migrateDatabase } from './migrate.ts';
import { observedSql, StatementObserver } from './observed-sql.ts';
import { rebaseEvents } from './queries/rebase-events.ts';
import type { Sql } from './sql.ts';

/** Connections of the hot path: more would only take turns on the same disk. */
const HOT_CONNECTIONS = 4;
const COLD_CONNECTIONS = 6;
/** One may hold the lock of a job that only one replica does. */
const CONTROL_CONNECTIONS = 3;
const OLDEST_SERVER_VERSION = 15;

export interface Database {
  /** For the statements of every execution: one row or batch by key. */
  hot: Sql;
  /** For everything else. */
  cold: Sql;
  /** For what replicas tell each other and the database: never behind the work of callers. */
  control: Sql;
  /** Opens a pool of one connection; whoever opens it ends it. */
  connect(): Sql;
  /** The pools by name, for whoever watches them. */
  pools: readonly { pool: string; connections: number; observer: StatementObserver }[];
  /** Tells whether the database answers. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** postgres:// URL; absent: embedded PostgreSQL in the data directory. */
  url: string | undefined;
  dataDirectory: string;
  logger: Logger;
  /** The database is gone for good: the process must end. */
  onLost: (reason: string) => void;
}

/** Connects, starting the embedded PostgreSQL when there is no URL, and brings the schema up to date. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const embedded =
    options.url === undefined
      ? await startEmbeddedPostgres(options.dataDirectory, options.logger, options.onLost)
      : undefined;
  const target: ConnectionTarget =
    embedded === undefined
      ? { url: options.url ?? '' }
      : { socketDirectory: embedded.socketDirectory, user: embedded.user, database: 'postgres' };
  const pools: { pool: string; connections: number; observer: StatementObserver }[] = [];
  const open = (pool: string, connections: number) => {
    const observer = new StatementObserver();
    pools.push({ pool, connections, observer });
    return observedSql(connect(target, connections), observer);
  };
  const hot = open('hot', HOT_CONNECTIONS);
  const cold = open('cold', COLD_CONNECTIONS);
  const control = open('control', CONTROL_CONNECTIONS);
  const close = async () => {
    await Promise.all([hot, cold, control].map((sql) => sql.end({ timeout: 5 })));
    await embedded?.stop();
  };
  try {
    await checkServer(cold);
    await migrateDatabase(target);
    if (await rebaseEvents(cold)) {
      options.logger.warn('the database was restored from another cluster; its events were given places in this one');
    }
  } catch (error) {
    await close();
    throw error;
  }
  const ping = async () => void (await cold`SELECT 1`);
  return { hot, cold, control, connect: () => connect(target, 1), pools, ping, close };
}

async function checkServer(sql: Sql): Promise<void> {
  let version: number;
  let encoding: string;
  try {
    const [row] = await sql<{ version: number; encoding: string }[]>`
      SELECT current_setting('server_version_num')::int AS version, current_setting('server_encoding') AS encoding`;
    version = row?.version ?? 0;
    encoding = row?.encoding ?? '';
  } catch (cause) {
    throw new HarrierError('unavailable', `the database cannot be reached: ${messageOf(cause)}`, { cause });
  }
  if (version < OLDEST_SERVER_VERSION * 10_000) {
    throw new HarrierError(
      'failed_precondition',
      `the database is PostgreSQL ${Math.floor(version / 10_000)}; Harrier needs ${OLDEST_SERVER_VERSION} or newer`,
    );
  }
  if (encoding !== 'UTF8') {
    throw new HarrierError('failed_precondition', `the database has the encoding ${encoding}; Harrier needs UTF8`);
  }
}
