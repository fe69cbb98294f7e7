import { dirname } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { startDatabase } from '../test-support/real-database.ts';
import { connect } from './connection.ts';
import { migrateDatabase } from './migrate.ts';

const { control } = await startDatabase();
const targetOf = (database: string, user = String(control.options.user)) => ({
  ...{ socketDirectory: dirname(String(control.options.path)), user, database },
});

test('replicas that start together migrate an empty database once, also where sessions may not be idle', async () => {
  await control`CREATE DATABASE empty`;
  // A migration takes longer, since it is a process of its own; to begin with the first statement does not, on a busy machine either.
  for (const timeout of ['idle_in_transaction_session_timeout', 'idle_session_timeout']) {
    await control.unsafe(`ALTER DATABASE empty SET ${timeout} = '400ms'`);
  }
  const target = targetOf('empty');
  await Promise.all([migrateDatabase(target), migrateDatabase(target), migrateDatabase(target)]);
  const [applied] = await control`SELECT count(*) FROM drizzle.__drizzle_migrations`;
  const check = connect(target, 1);
  onTestFinished(() => check.end({ timeout: 1 }));
  const found = await check`
    SELECT (SELECT count(*) FROM drizzle.__drizzle_migrations) AS migrations, (SELECT count(*) FROM executions) AS executions`;
  expect(found).toEqual([{ migrations: applied?.count, executions: 0 }]);
});

test('where nothing is missing, one session is enough', async () => {
  await control`CREATE ROLE single LOGIN CONNECTION LIMIT 1`;
  await control`GRANT pg_read_all_data TO single`;
  await expect(migrateDatabase(targetOf('postgres', 'single'))).resolves.toBeUndefined();
});
