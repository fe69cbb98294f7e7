import { expect, test } from 'vitest';
import { withoutDatabaseErrors } from './while-away.ts';

const refused = (code: string) => Object.assign(new Error('as PostgreSQL says'), { code });

test.each([
  ['57P01', 'cannot be reached now'],
  ['ECONNREFUSED', 'cannot be reached now'],
  ['53100', 'has no room'],
  ['53200', 'has no room'],
])('%s of the database is told as unavailable: it %s', (code, said) => {
  expect(withoutDatabaseErrors(refused(code))).toMatchObject({
    code: 'unavailable',
    message: expect.stringContaining(said),
  });
});

test.each(['23505', '42P01'])('%s of the database is a defect of the caller of the database', (code) => {
  const error = refused(code);
  expect(withoutDatabaseErrors(error)).toBe(error);
});
