import { dirname } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { startDatabase } from '../test-support/real-database.ts';
import { connect } from './connection.ts';
import { migrateDatabase } from './migrate.ts';

const { control } = await startDatabase();

test('replicas that start together migrate an empty database once, also where sessions may not be idle', async () => {
  await control`CREATE DATABASE empty`;
  // A migration takes longer: it is a process of its own.
  for (const timeout of ['idle_in_transaction_session_timeout', 'idle_session_timeout']) {
    await control.unsafe(`ALTER DATABASE empty SET ${timeout} = '20ms'`);
  }
  const target = {
    socketDirectory: dirname(String(control.options.path)),
    user: String(control.options.user),
    database: 'empty',
  };
  const replicas = [connect(target, 2), connect(target, 2), connect(target, 2)];
  onTestFinished(async () => void (await Promise.all(replicas.map((sql) => sql.end({ timeout: 1 })))));
  await Promise.all(replicas.map((sql) => migrateDatabase(sql, target)));
  const applied = await control`SELECT count(*) FROM drizzle.__drizzle_migrations`;
  const check = connect(target, 1);
  onTestFinished(() => check.end({ timeout: 1 }));
  expect(await check`SELECT count(*) FROM drizzle.__drizzle_migrations`).toEqual(applied);
  expect(await check`SELECT count(*) FROM executions`).toEqual([{ count: 0 }]);
});
