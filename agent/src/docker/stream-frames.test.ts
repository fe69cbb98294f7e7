import fc from 'fast-check';
import { expect, test } from 'vitest';
import { StreamFrames } from './stream-frames.ts';

function frame(stream: number, data: Uint8Array): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(data.length, 4);
  return Buffer.concat([header, data]);
}

test('frames in any pieces give the bytes of both streams', () => {
  const one = fc.record({ stream: fc.constantFrom(1, 2), data: fc.uint8Array({ maxLength: 50 }) });
  fc.assert(
    fc.property(fc.array(one), fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }), (frames, cuts) => {
      const received = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
      const lengths: number[] = [];
      const reader = new StreamFrames(
        (stream, data) => {
          received[stream] = Buffer.concat([received[stream], data]);
        },
        (length) => lengths.push(length),
      );
      let rest = Buffer.concat(frames.map(({ stream, data }) => frame(stream, data)));
      for (let i = 0; rest.length > 0; i++) {
        const cut = cuts[i % cuts.length] ?? 1;
        reader.add(rest.subarray(0, cut));
        rest = rest.subarray(cut);
      }
      const expected = (wanted: number) =>
        Buffer.concat(frames.flatMap(({ stream, data }) => (stream === wanted ? [data] : [])));
      expect(received).toEqual({ stdout: expected(1), stderr: expected(2) });
      expect(lengths).toEqual(frames.map(({ data }) => data.length));
    }),
  );
});

test('what is no frame is an error', () => {
  expect(() => new StreamFrames(() => {}).add(Buffer.from('HTTP/1.1 200'))).toThrow('stream 72');
});
