import fc from 'fast-check';
import { expect, test } from 'vitest';
import { framePayload, isDataFrame, WebSocketFrames } from '../../faults/world/websocket-frames.ts';

const HANDSHAKE = Buffer.from('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n');

interface Frame {
  opcode: number;
  masked: boolean;
  payload: Buffer;
}

/** A frame as RFC 6455, section 5.2 describes it. */
function encode({ opcode, masked, payload }: Frame): Buffer {
  const { length } = payload;
  const bytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + bytes);
  head[0] = 0x80 | opcode;
  head[1] = (masked ? 0x80 : 0) | (bytes === 0 ? length : bytes === 2 ? 126 : 127);
  if (bytes === 2) head.writeUInt16BE(length, 2);
  if (bytes === 8) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, masked ? Buffer.from([1, 2, 3, 4]) : Buffer.alloc(0), payload]);
}

const frame = fc.record({
  opcode: fc.constantFrom(0, 2, 8, 9, 10),
  masked: fc.boolean(),
  payload: fc
    .oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 65_500, max: 65_600 }))
    .map((length) => Buffer.alloc(length, 7)),
});

test('however the bytes come, the handshake and the same whole frames come out', () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 70_000 }), { maxLength: 20 });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 8 }), cuts, (frames, sizes) => {
      const parts = [HANDSHAKE, ...frames.map(encode)];
      let left = Buffer.concat(parts);
      const splitter = new WebSocketFrames();
      const found: Buffer[] = [];
      for (const size of [...sizes, left.length]) {
        found.push(...splitter.add(left.subarray(0, size)));
        left = left.subarray(size);
      }
      expect(found.length).toBe(parts.length);
      for (const [i, part] of parts.entries()) expect(found[i]?.equals(part)).toBe(true);
    }),
  );
});

test('frames with data are told from control frames, and what a server’s frame carries is found', () => {
  fc.assert(
    fc.property(frame, (given) => {
      expect(isDataFrame(encode(given))).toBe(given.opcode < 8);
      expect(framePayload(encode({ ...given, masked: false })).equals(given.payload)).toBe(true);
    }),
  );
});
