import { randomUUID } from 'node:crypto';
import { LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { readLogChunks, storedLogBytes, storeLogChunks } from './log-chunks.ts';

const { hot: sql } = await startDatabase();
/** Every byte tells where it belongs. */
const STREAM = Buffer.from(Array.from({ length: 4_000 }, (_, index) => (index * 7) % 251));

function newRange() {
  return { tenantId: randomUUID(), executionId: randomUUID(), attempt: 1, stream: Stream.STDOUT };
}

/** What a reader shows that stands at `from`; undefined when bytes are missing. */
async function readFrom(range: ReturnType<typeof newRange>, from: number, until: number): Promise<Buffer | undefined> {
  const parts: Uint8Array[] = [];
  let at = from;
  while (at < until) {
    const before = at;
    for (const { offset, data } of await readLogChunks(sql, range, at, 4)) {
      // What stands behind a gap is none of the bytes that are wanted.
      if (at >= until) break;
      if (offset > at) return undefined;
      const rest = data.subarray(at - offset);
      parts.push(rest);
      at += rest.length;
    }
    if (at === before) return undefined;
  }
  return Buffer.concat(parts).subarray(0, until - from);
}

test('chunks may overlap, in any order and again: what is stored without a gap is known, and read from any byte', async () => {
  const piece = fc.record({ at: fc.integer({ min: 0, max: 300 }), length: fc.integer({ min: 1, max: 120 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 12 }), fc.nat(300), async (pieces, from) => {
      const range = newRange();
      const written = new Array<boolean>(500).fill(false);
      for (const { at, length } of pieces) {
        await storeLogChunks(sql, [{ ...range, offset: at, data: STREAM.subarray(at, at + length) }]);
        written.fill(true, at, at + length);
      }
      const gap = written.indexOf(false);
      expect(await storedLogBytes(sql, range)).toBe(gap);
      if (from < gap) expect((await readFrom(range, from, gap))?.equals(STREAM.subarray(from, gap))).toBe(true);
    }),
    { numRuns: 60 },
  );
}, 60_000);

test('of two chunks that begin at the same byte the longer one stays, whichever comes last', async () => {
  for (const lengths of [
    [100, 300],
    [300, 100],
  ]) {
    const range = newRange();
    for (const length of lengths)
      await storeLogChunks(sql, [{ ...range, offset: 0, data: STREAM.subarray(0, length) }]);
    expect(await storedLogBytes(sql, range)).toBe(300);
  }
});

test('a chunk of the greatest length is found from its last byte', async () => {
  const range = newRange();
  const data = Buffer.alloc(64 * 1024, 'x');
  await storeLogChunks(sql, [{ ...range, offset: 0, data }]);
  expect((await readLogChunks(sql, range, data.length - 1, 4)).map(({ offset }) => offset)).toEqual([0]);
  expect(await readLogChunks(sql, range, data.length, 4)).toEqual([]);
});
