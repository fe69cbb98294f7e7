import { expect, test } from 'vitest';
import { connect } from './connection.ts';

/** What postgres.js makes of it; it connects only when it is asked something. */
function optionsOf(url: string) {
  const { path, host, port, user, pass, database, connection, ssl } = connect({ url }, 1).options;
  return { path, host, port, user, pass, database, connection, ssl };
}

test.each([
  ['postgres://me@/db?host=/run/postgresql', '/run/postgresql/.s.PGSQL.5432'],
  ['postgres:///db?host=/run/postgresql', '/run/postgresql/.s.PGSQL.5432'],
  ['postgresql:///db?host=%2Frun%2Fpostgresql&port=5433', '/run/postgresql/.s.PGSQL.5433'],
  ['postgres://me@%2Frun%2Fpostgresql/db', '/run/postgresql/.s.PGSQL.5432'],
  ['postgres://me:secret@%2Frun%2Fpostgresql:5434/db', '/run/postgresql/.s.PGSQL.5434'],
  ['postgres://me@other.example:1/db?host=/tmp&port=2', '/tmp/.s.PGSQL.2'],
])('%s is a unix socket', (url, path) => {
  const options = optionsOf(url);
  expect(options).toMatchObject({ path, database: 'db' });
  if (url.includes('me')) expect(options.user).toBe('me');
  if (url.includes('secret')) expect(options.pass).toBe('secret');
  // What is not a setting of the server must not be sent to it as one.
  expect(options.connection).not.toHaveProperty('host');
  expect(options.connection).not.toHaveProperty('port');
});

test.each([
  ['postgres://me:secret@db.example:5433/db', ['db.example'], [5433]],
  ['postgres://me@db.example/db?sslmode=require', ['db.example'], [5432]],
  ['postgres://me@/db?host=db.example&port=5434', ['db.example'], [5434]],
  ['postgres://me@db.example/db?port=5434', ['db.example'], [5434]],
  ['postgres://me@one.example:1,two.example:2/db', ['one.example', 'two.example'], [1, 2]],
])('%s goes over TCP', (url, host, port) => {
  expect(optionsOf(url)).toMatchObject({ path: false, host, port, user: 'me', database: 'db' });
});
