import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeHeader, FrameDecoder, LauncherProtocolError } from './frame-codec.ts';

interface Frame {
  header: unknown;
  body: string;
}

function decodeInPieces(bytes: Buffer, cuts: number[]): Frame[] {
  const frames: Frame[] = [];
  const decoder = new FrameDecoder((header, body) => frames.push({ header, body: body.toString('hex') }));
  let start = 0;
  for (const cut of [...cuts.map((position) => position % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
    decoder.push(bytes.subarray(start, cut));
    start = cut;
  }
  return frames;
}

test('frames come out as they went in, however the stream is cut', () => {
  const frame = fc.record({
    header: fc.dictionary(
      fc.string({ minLength: 1 }).filter((key) => key !== '__proto__'),
      fc.string({ unit: 'grapheme' }),
    ),
    body: fc.uint8Array({ maxLength: 300 }),
  });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 8 }), fc.array(fc.nat(5000)), (frames, cuts) => {
      const bytes = Buffer.concat(frames.flatMap(({ header, body }) => [encodeHeader(header, body.length), body]));
      const expected = frames.map(({ header, body }) => ({
        header: JSON.parse(JSON.stringify(header)),
        body: Buffer.from(body).toString('hex'),
      }));
      expect(decodeInPieces(bytes, cuts)).toEqual(expected);
    }),
  );
});

test('a body of eight megabytes in small chunks arrives whole', () => {
  const body = Buffer.alloc(8 * 1024 * 1024, 7);
  const bytes = Buffer.concat([encodeHeader({ type: 'x' }, body.length), body]);
  let received: Buffer | undefined;
  const decoder = new FrameDecoder((_, data) => {
    received = data;
  });
  for (let start = 0; start < bytes.length; start += 65_536) decoder.push(bytes.subarray(start, start + 65_536));
  expect(received?.equals(body)).toBe(true);
});

test.each([
  ['no header', [0, 0, 0, 0, 0, 0, 0, 0]],
  ['a header beyond its bound', [0, 16, 0, 1, 0, 0, 0, 0]],
  ['a body beyond its bound', [0, 0, 0, 2, 1, 128, 0, 1]],
  ['a header that is not JSON', [0, 0, 0, 2, 0, 0, 0, 0, 123, 123]],
])('a frame with %s ends the stream', (_, bytes) => {
  expect(() => new FrameDecoder(() => {}).push(Buffer.from(bytes))).toThrow(LauncherProtocolError);
});

test('a header or body beyond its bound is not sent', () => {
  expect(() => encodeHeader({ env: 'x'.repeat(1024 * 1024) }, 0)).toThrow(LauncherProtocolError);
  expect(() => encodeHeader({}, 24 * 1024 * 1024 + 1)).toThrow(LauncherProtocolError);
});
