import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LogStream, MAX_PIECE_BYTES } from './log-stream.ts';

const bytes = (text: string) => Buffer.from(text);
const textOf = (data: Uint8Array | undefined) => (data === undefined ? undefined : Buffer.from(data).toString());

describe('LogStream', () => {
  test('takes bytes in order and tells when some are missing', () => {
    const stream = new LogStream(0);
    expect(stream.append(0, bytes('hello'))).toBe(true);
    expect(stream.append(9, bytes('gap'))).toBe(false);
    expect(stream.append(3, bytes('lo world'))).toBe(true);
    expect(stream.append(0, bytes('hello'))).toBe(true);
    expect(stream.end).toBe(11);
    expect(textOf(stream.read(0)?.data)).toBe('hello world');
    expect(textOf(stream.read(4, 3)?.data)).toBe('o w');
    expect(stream.read(11)).toBeUndefined();
  });

  test('goes on behind what the database has', () => {
    const stream = new LogStream(100);
    expect(stream.append(90, bytes('0123456789abc'))).toBe(true);
    expect(stream.read(99)).toBeUndefined();
    expect(textOf(stream.read(100)?.data)).toBe('abc');
    expect(stream.append(104, bytes('x'))).toBe(false);
  });

  test('whatever comes in whatever pieces, twice or not, is taken once and read the same', () => {
    const chunks = fc.array(fc.tuple(fc.integer({ min: 1, max: 50_000 }), fc.integer({ min: 0, max: 60_000 })), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(
        chunks,
        fc.array(fc.nat({ max: 300_000 }), { maxLength: 8 }),
        fc.nat({ max: 400_000 }),
        (parts, offsets, budget) => {
          const total = parts.reduce((sum, [length]) => sum + length, 0);
          const whole = Buffer.from(Array.from({ length: total }, (_, index) => (index * 31 + (index >> 8)) & 0xff));
          const stream = new LogStream(0);
          const taken: Buffer[] = [];
          let sent = 0;
          for (const [length, overlap] of parts) {
            const start = Math.max(0, sent - overlap);
            expect(stream.append(start, whole.subarray(start, sent + length))).toBe(true);
            sent += length;
            for (const piece of stream.take(budget)) {
              expect(piece.data.length).toBeLessThanOrEqual(MAX_PIECE_BYTES);
              taken.push(Buffer.from(piece.data));
              stream.markStored(piece.offset + piece.data.length);
            }
          }
          for (const piece of stream.take(total)) taken.push(Buffer.from(piece.data));
          expect(Buffer.concat(taken).equals(whole)).toBe(true);
          for (const offset of offsets) {
            const piece = stream.read(offset);
            if (offset >= stream.start && offset < total) {
              expect(piece?.offset).toBe(offset);
              expect(whole.subarray(offset, offset + (piece?.data.length ?? 0)).equals(piece?.data ?? bytes('x'))).toBe(
                true,
              );
            } else expect(piece).toBeUndefined();
          }
          const tail = stream.tail(4096);
          expect(whole.subarray(total - tail.length).equals(tail)).toBe(true);
          expect(tail.length).toBe(Math.min(4096, total));
        },
      ),
      { numRuns: 60 },
    );
  });

  test('lets go of what is stored, but for the latest', () => {
    const stream = new LogStream(0);
    for (let offset = 0; offset < 1_000_000; offset += 10_000) stream.append(offset, new Uint8Array(10_000));
    stream.take(1_000_000);
    stream.markStored(1_000_000);
    expect(stream.start).toBeGreaterThan(900_000);
    expect(stream.end - stream.start).toBeGreaterThanOrEqual(64 * 1024);
  });
});
