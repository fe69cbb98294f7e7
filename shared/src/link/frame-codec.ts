import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  type AgentMessage,
  AgentMessagesSchema,
  type LinkFrame,
  LinkFrameSchema,
  type ServerMessage,
  ServerMessagesSchema,
} from '../gen/harrier/v1/link_pb.ts';
import { LinkProtocolError } from './protocol-error.ts';

/** Largest WebSocket message of the link. */
export const MAX_FRAME_BYTES = 1024 * 1024;
/** Largest batch that is put together from fragments: a result or input of 8 MiB, source of 4 MiB, and what is around them. */
export const MAX_BATCH_BYTES = 16 * 1024 * 1024;
/** Room in a frame for its sequence numbers and tags. */
const FRAME_OVERHEAD_BYTES = 64;
const MAX_BODY_BYTES = MAX_FRAME_BYTES - FRAME_OVERHEAD_BYTES;

export const LINK_SUBPROTOCOL = 'harrier.link.v1';
export const LINK_PATH = '/agent/v1/link';

/** Which side a codec stands on: what it encodes and what it expects. */
export type LinkSide = 'agent' | 'server';

type Outgoing<S extends LinkSide> = S extends 'agent' ? AgentMessage : ServerMessage;
type Incoming<S extends LinkSide> = S extends 'agent' ? ServerMessage : AgentMessage;
type FrameBody = NonNullable<MessageInitShape<typeof LinkFrameSchema>['body']>;

/**
 * Turns batches of messages into numbered frames and back. One codec belongs to one link; a new link starts a new one.
 * Frames that were seen are dropped; a gap, a frame of the wrong direction or an undecodable one is a LinkProtocolError,
 * after which the link must be closed.
 */
export class LinkCodec<S extends LinkSide> {
  readonly #side: S;
  #sent = 0n;
  #received = 0n;
  #acknowledged = 0n;
  #fragments: Uint8Array[] = [];
  #fragmentBytes = 0;

  constructor(side: S) {
    this.#side = side;
  }

  /** Number of the last frame that the other side has said to have seen. */
  get acknowledged(): bigint {
    return this.#acknowledged;
  }

  /** Frames to send, in order, for messages in the order in which they happened. */
  encode(messages: Outgoing<S>[]): Uint8Array[] {
    const whole = this.#encodeFrame(this.#bodyOf(messages));
    if (whole.length <= MAX_FRAME_BYTES) return [whole];
    // The number of the oversized frame is taken back: its content goes out again, in pieces.
    this.#sent--;
    if (messages.length > 1) {
      const middle = messages.length >> 1;
      return [...this.encode(messages.slice(0, middle)), ...this.encode(messages.slice(middle))];
    }
    return this.#encodeFragments(messages);
  }

  /**
   * The messages of a frame: none for a repeated frame or an incomplete batch.
   * @param options.fragments false: a batch must fit into one frame, so that nothing is kept for a stranger
   * @throws LinkProtocolError
   */
  decode(data: Uint8Array, { fragments = true }: { fragments?: boolean } = {}): Incoming<S>[] {
    const frame = parseFrame(data);
    if (frame.body.case === 'fragment' && !fragments) {
      throw new LinkProtocolError('a batch in fragments came before the welcome');
    }
    if (frame.acknowledged > this.#sent) {
      throw new LinkProtocolError(`frame ${frame.acknowledged} was acknowledged, only ${this.#sent} were sent`);
    }
    if (frame.sequence <= this.#received && frame.sequence > 0n) return [];
    if (frame.sequence !== this.#received + 1n) {
      throw new LinkProtocolError(`frame ${frame.sequence} came after frame ${this.#received}`);
    }
    this.#received = frame.sequence;
    if (frame.acknowledged > this.#acknowledged) this.#acknowledged = frame.acknowledged;
    return this.#messagesOf(frame);
  }

  #bodyOf(messages: Outgoing<S>[]): FrameBody {
    return this.#side === 'agent'
      ? { case: 'agent', value: { messages: messages as AgentMessage[] } }
      : { case: 'server', value: { messages: messages as ServerMessage[] } };
  }

  #encodeFrame(body: FrameBody): Uint8Array {
    this.#sent++;
    return toBinary(
      LinkFrameSchema,
      create(LinkFrameSchema, { sequence: this.#sent, acknowledged: this.#received, body }),
    );
  }

  #encodeFragments(messages: Outgoing<S>[]): Uint8Array[] {
    const batch =
      this.#side === 'agent'
        ? toBinary(AgentMessagesSchema, create(AgentMessagesSchema, { messages: messages as AgentMessage[] }))
        : toBinary(ServerMessagesSchema, create(ServerMessagesSchema, { messages: messages as ServerMessage[] }));
    if (batch.length > MAX_BATCH_BYTES) {
      throw new LinkProtocolError(`a message of ${batch.length} bytes is larger than ${MAX_BATCH_BYTES}`);
    }
    const frames: Uint8Array[] = [];
    for (let start = 0; start < batch.length; start += MAX_BODY_BYTES) {
      const data = batch.subarray(start, start + MAX_BODY_BYTES);
      const last = start + MAX_BODY_BYTES >= batch.length;
      frames.push(this.#encodeFrame({ case: 'fragment', value: { data, last } }));
    }
    return frames;
  }

  #messagesOf(frame: LinkFrame): Incoming<S>[] {
    const expected = this.#side === 'agent' ? 'server' : 'agent';
    if (frame.body.case === 'fragment') return this.#addFragment(frame.body.value.data, frame.body.value.last);
    if (this.#fragments.length > 0) throw new LinkProtocolError('a batch in fragments was interrupted');
    if (frame.body.case !== expected) {
      throw new LinkProtocolError(`a frame with "${frame.body.case ?? 'no body'}" came, not "${expected}"`);
    }
    return frame.body.value.messages as Incoming<S>[];
  }

  #addFragment(data: Uint8Array, last: boolean): Incoming<S>[] {
    this.#fragmentBytes += data.length;
    if (this.#fragmentBytes > MAX_BATCH_BYTES) {
      throw new LinkProtocolError(`a batch in fragments is larger than ${MAX_BATCH_BYTES} bytes`);
    }
    this.#fragments.push(data);
    if (!last) return [];
    const batch = Buffer.concat(this.#fragments, this.#fragmentBytes);
    this.#fragments = [];
    this.#fragmentBytes = 0;
    try {
      const schema = this.#side === 'agent' ? ServerMessagesSchema : AgentMessagesSchema;
      return fromBinary(schema, batch).messages as Incoming<S>[];
    } catch (cause) {
      throw new LinkProtocolError('a batch in fragments cannot be decoded', { cause });
    }
  }
}

function parseFrame(data: Uint8Array): LinkFrame {
  if (data.length > MAX_FRAME_BYTES) {
    throw new LinkProtocolError(`a frame of ${data.length} bytes is larger than ${MAX_FRAME_BYTES}`);
  }
  try {
    return fromBinary(LinkFrameSchema, data);
  } catch (cause) {
    throw new LinkProtocolError('a frame cannot be decoded', { cause });
  }
}
