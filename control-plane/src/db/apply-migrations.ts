import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate } from 'drizzle-orm/postgres-js/migrator';
import { type ConnectionTarget, connect } from './connection.ts';

// A program: applies the migrations to the database that its standard input names, then ends.

const MIGRATIONS = fileURLToPath(new URL('./migrations', import.meta.url));

const target = JSON.parse(await text(process.stdin)) as ConnectionTarget;
// A client of its own: Drizzle changes how its client reads dates.
const sql = connect(target, 1);
try {
  await migrate(drizzle(sql), { migrationsFolder: MIGRATIONS });
} finally {
  await sql.end({ timeout: 5 });
}
