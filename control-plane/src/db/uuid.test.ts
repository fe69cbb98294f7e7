import { expect, test } from 'vitest';
import { uuidv7 } from './uuid.ts';

test('ids are UUIDv7 of their time, different, and in the order in which they were made', () => {
  const nowMs = Date.now() + 1000;
  const ids = Array.from({ length: 10_000 }, () => uuidv7(nowMs));
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids.toSorted()).toEqual(ids);
  expect(Number.parseInt((ids[0] ?? '').replaceAll('-', '').slice(0, 12), 16)).toBe(nowMs);
  // A clock that goes back does not.
  expect(uuidv7(nowMs - 5000) > (ids.at(-1) ?? '')).toBe(true);
});
