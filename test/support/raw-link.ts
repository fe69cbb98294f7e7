import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { create, fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { LINK_PATH, LINK_SUBPROTOCOL, LinkCodec, signedBytes } from '@harrier/shared';
import {
  type AgentMessage,
  AgentMessageSchema,
  EnvironmentSupportSchema,
  type HelloSchema,
  LinkFrameSchema,
  type ServerMessage,
} from '@harrier/shared/gen/link';
import { WebSocket } from 'ws';
import { within } from './wait.ts';

type Body = NonNullable<MessageInitShape<typeof AgentMessageSchema>['message']>;
type Case = NonNullable<ServerMessage['message']['case']>;
type ValueOf<C extends Case> = Extract<ServerMessage['message'], { case: C }>['value'];

/** The key pair of an agent that is only a WebSocket. */
export class RawIdentity {
  readonly #privateKey: KeyObject;
  readonly publicKey: Uint8Array;
  agentId = '';

  constructor() {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    this.#privateKey = privateKey;
    this.publicKey = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  }

  sign(nonce: Uint8Array): Uint8Array {
    return sign(null, signedBytes(nonce, this.publicKey), this.#privateKey);
  }
}

/** The agent's side of a link, frame by frame. */
export class RawLink {
  readonly socket: WebSocket;
  readonly #codec = new LinkCodec('agent');
  /** Close code and reason. */
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly #messages: ServerMessage[] = [];
  #wake = Promise.withResolvers<void>();

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('message', (data: Buffer) => {
      // Not with the codec: that would refuse answers to frames which a test has made by hand.
      const { body } = fromBinary(LinkFrameSchema, data);
      if (body.case === 'server') this.#messages.push(...body.value.messages);
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    });
    this.closed = new Promise((resolve) =>
      socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() })),
    );
  }

  static open(serverUrl: string): RawLink {
    const url = `${serverUrl.replace('http', 'ws')}${LINK_PATH}`;
    return new RawLink(new WebSocket(url, LINK_SUBPROTOCOL, { perMessageDeflate: false }));
  }

  /** Opens a link and says hello. @returns the link, welcomed; `goodbye` tells why it was not. */
  static async join(
    serverUrl: string,
    identity: RawIdentity,
    hello: MessageInitShape<typeof HelloSchema> = {},
  ): Promise<RawLink> {
    const link = RawLink.open(serverUrl);
    await link.sayHello(identity, hello);
    identity.agentId = (await link.next('welcome')).agentId;
    return link;
  }

  async sayHello(identity: RawIdentity, hello: MessageInitShape<typeof HelloSchema> = {}): Promise<void> {
    const { nonce } = await this.next('challenge');
    const common = { agentId: identity.agentId, publicKey: identity.publicKey, signature: identity.sign(nonce) };
    const facts = {
      name: 'raw',
      slots: 1,
      instanceId: 'raw-1',
      environments: create(EnvironmentSupportSchema, { available: ['inline'] }),
    };
    this.send({ case: 'hello', value: { ...common, ...facts, ...hello } });
  }

  /** The frames of messages, to be sent or spoilt. */
  frames(...bodies: Body[]): Uint8Array[] {
    return this.#codec.encode(bodies.map((message): AgentMessage => create(AgentMessageSchema, { message })));
  }

  send(...bodies: Body[]): void {
    for (const frame of this.frames(...bodies)) this.socket.send(frame);
  }

  /** Waits for the next message of a kind; what came before it is passed over. */
  async next<C extends Case>(kind: C): Promise<ValueOf<C>> {
    const found = async (): Promise<ValueOf<C>> => {
      while (true) {
        const wake = this.#wake.promise;
        const message = this.#messages.shift()?.message;
        if (message?.case === kind) return message.value as ValueOf<C>;
        if (message === undefined) await Promise.race([wake, this.#refuseAfterClose()]);
      }
    };
    return await within(`"${kind}" on the link`, found());
  }

  async #refuseAfterClose(): Promise<void> {
    const { code, reason } = await this.closed;
    if (this.#messages.length === 0) throw new Error(`the link was closed: ${code} ${reason}`);
  }

  close(): void {
    this.socket.terminate();
  }
}
