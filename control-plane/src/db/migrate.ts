import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { HarrierError } from '@harrier/shared';
import { ADVISORY_LOCKS } from './advisory-locks.ts';
import { type ConnectionTarget, connect } from './connection.ts';
import type { Sql } from './sql.ts';

const JOURNAL = new URL('./migrations/meta/_journal.json', import.meta.url);
const PROGRAM = fileURLToPath(new URL('./apply-migrations.ts', import.meta.url));

/** Applies the migrations that are missing. Replicas that start together take turns. */
export async function migrateDatabase(target: ConnectionTarget): Promise<void> {
  // A session of its own has the lock until it ends: one that is reserved of a pool may never come when a link breaks, and a
  // transaction may be ended by the server for being idle.
  const holder = connect(target, 1);
  try {
    await holder`SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'`;
    await holder`SELECT pg_advisory_lock(${ADVISORY_LOCKS.migration})`;
    if ((await appliedMigration(holder)) < newestMigration()) await applyMigrations(target);
  } finally {
    await holder.end({ timeout: 5 });
  }
}

function newestMigration(): number {
  const { entries } = JSON.parse(readFileSync(JOURNAL, 'utf8')) as { entries: { when: number }[] };
  return Math.max(...entries.map((entry) => entry.when));
}

/** Drizzle's own record; 0 on a new database. */
async function appliedMigration(sql: Sql): Promise<number> {
  const [table] = await sql<
    { name: string | null }[]
  >`SELECT to_regclass('drizzle.__drizzle_migrations')::text AS name`;
  if (table?.name == null) return 0;
  const [row] = await sql<{ newest: number | null }[]>`
    SELECT max(created_at)::float8 AS newest FROM drizzle.__drizzle_migrations`;
  return row?.newest ?? 0;
}

/**
 * In a process of its own: Drizzle takes some 35 MiB, and is needed for a second after an upgrade. The target goes through
 * standard input, since it may hold a password.
 */
async function applyMigrations(target: ConnectionTarget): Promise<void> {
  const child = spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'ignore', 'pipe'] });
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  child.stdin.on('error', () => undefined).end(JSON.stringify(target));
  const [problems, [code, signal]] = await Promise.all([text(child.stderr), ended]);
  if (code !== 0) {
    throw new HarrierError(
      'internal',
      `the database could not be migrated (${signal ?? `exit code ${code}`}):\n${problems}`,
    );
  }
}
