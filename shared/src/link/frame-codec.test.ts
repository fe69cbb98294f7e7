import { create, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type AgentMessage,
  AgentMessageSchema,
  LinkFrameSchema,
  ServerMessageSchema,
} from '../gen/harrier/v1/link_pb.ts';
import { LinkCodec, MAX_FRAME_BYTES } from './frame-codec.ts';
import { LinkProtocolError } from './protocol-error.ts';

const log = (bytes: number, offset = 0): AgentMessage =>
  create(AgentMessageSchema, {
    message: { case: 'log', value: { offset: BigInt(offset), data: new Uint8Array(bytes).fill(7) } },
  });

describe('LinkCodec', () => {
  test('what one side encodes the other decodes, in order, in frames of at most 1 MiB', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer({ min: 0, max: 700_000 }), { maxLength: 4 }), { maxLength: 4 }),
        (batches) => {
          const agent = new LinkCodec('agent');
          const server = new LinkCodec('server');
          const sent: number[] = [];
          const received: number[] = [];
          for (const batch of batches.filter((sizes) => sizes.length > 0)) {
            const frames = agent.encode(batch.map((bytes) => log(bytes, sent.push(bytes))));
            for (const frame of frames) {
              expect(frame.length).toBeLessThanOrEqual(MAX_FRAME_BYTES);
              for (const { message } of server.decode(frame)) {
                if (message.case === 'log') received.push(message.value.data.length);
              }
            }
          }
          expect(received).toEqual(sent);
        },
      ),
      { numRuns: 30 },
    );
  });

  test('a message larger than a frame travels in fragments', () => {
    const frames = new LinkCodec('agent').encode([log(3 * MAX_FRAME_BYTES)]);
    expect(frames.length).toBe(4);
    const server = new LinkCodec('server');
    const messages = frames.map((frame) => server.decode(frame).length);
    expect(messages).toEqual([0, 0, 0, 1]);
  });

  test('a side that takes no fragments keeps nothing of one', () => {
    const [first] = new LinkCodec('agent').encode([log(3 * MAX_FRAME_BYTES)]);
    const server = new LinkCodec('server');
    expect(() => server.decode(first as Uint8Array, { fragments: false })).toThrow('before the welcome');
    const [whole] = new LinkCodec('agent').encode([log(1)]);
    expect(server.decode(whole as Uint8Array, { fragments: false })).toHaveLength(1);
  });

  test('a message that no batch can hold is refused', () => {
    expect(() => new LinkCodec('agent').encode([log(17 * MAX_FRAME_BYTES)])).toThrow(LinkProtocolError);
  });

  test('a repeated frame is dropped, a gap is an error', () => {
    const agent = new LinkCodec('agent');
    const server = new LinkCodec('server');
    const [first, second, third] = [log(1), log(2), log(3)].map((message) => agent.encode([message])[0] as Uint8Array);
    expect(server.decode(first as Uint8Array).length).toBe(1);
    expect(server.decode(first as Uint8Array).length).toBe(0);
    expect(() => server.decode(third as Uint8Array)).toThrow('frame 3 came after frame 1');
    expect(server.decode(second as Uint8Array).length).toBe(1);
  });

  test('acknowledgements travel back, and one of a frame that was not sent is an error', () => {
    const agent = new LinkCodec('agent');
    const server = new LinkCodec('server');
    for (const frame of agent.encode([log(1)])) server.decode(frame);
    for (const frame of server.encode([create(ServerMessageSchema, {})])) agent.decode(frame);
    expect(agent.acknowledged).toBe(1n);
    const forged = toBinary(
      LinkFrameSchema,
      create(LinkFrameSchema, { sequence: 2n, acknowledged: 9n, body: { case: 'server', value: {} } }),
    );
    expect(() => agent.decode(forged)).toThrow('frame 9 was acknowledged, only 1 were sent');
  });

  test('frames of the wrong direction, without a number, and garbage are errors', () => {
    const frame = (sequence: bigint) =>
      toBinary(LinkFrameSchema, create(LinkFrameSchema, { sequence, body: { case: 'server', value: {} } }));
    expect(() => new LinkCodec('server').decode(frame(1n))).toThrow('"server" came, not "agent"');
    expect(() => new LinkCodec('server').decode(frame(0n))).toThrow(LinkProtocolError);
    expect(() => new LinkCodec('server').decode(Buffer.from('not a frame'))).toThrow('cannot be decoded');
    expect(() => new LinkCodec('server').decode(new Uint8Array(MAX_FRAME_BYTES + 1))).toThrow('is larger than');
  });
});
