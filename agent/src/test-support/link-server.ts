import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { LINK_PATH, LINK_SUBPROTOCOL, LinkCodec } from '@harrier/shared';
import {
  type AgentMessage,
  type AttemptResult,
  type Hello,
  LogStoredSchema,
  type ServerMessage,
  ServerMessageSchema,
} from '@harrier/shared/gen/link';
import { onTestFinished } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';

type ServerMessageBody = NonNullable<MessageInitShape<typeof ServerMessageSchema>['message']>;
type Case = NonNullable<AgentMessage['message']['case']>;
type ValueOf<C extends Case> = Extract<AgentMessage['message'], { case: C }>['value'];

/** The control plane's side of one WebSocket, under the test's command. */
export class ServerSide {
  readonly nonce = randomBytes(32);
  readonly socket: WebSocket;
  /** Resolves with the close code when the WebSocket is gone. */
  readonly closed: Promise<number>;
  /** Frames that came. */
  frames = 0;
  /** Frames that were sent. */
  readonly sent: Uint8Array[] = [];
  /** Whether heartbeats are answered with a renewal of the lease. */
  renews = true;
  readonly #codec = new LinkCodec('server');
  readonly #messages: AgentMessage[] = [];
  #wake = Promise.withResolvers<void>();

  constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.on('message', (data: Buffer) => {
      this.frames++;
      for (const message of this.#codec.decode(data)) {
        this.#messages.push(message);
        this.#renew(message);
      }
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    });
  }

  send(...messages: ServerMessageBody[]): void {
    const batch: ServerMessage[] = messages.map((message) => create(ServerMessageSchema, { message }));
    for (const frame of this.#codec.encode(batch)) {
      this.sent.push(frame);
      this.socket.send(frame);
    }
  }

  #renew({ message }: AgentMessage): void {
    if (message.case !== 'heartbeat' || !this.renews) return;
    this.send({ case: 'leaseRenewed', value: { heartbeat: message.value.number } });
  }

  /** Waits for the next message of a kind; what came before it is passed over. */
  async next<C extends Case>(kind: C): Promise<ValueOf<C>> {
    for (;;) {
      const { message } = await this.#take();
      if (message.case === kind) return message.value as ValueOf<C>;
    }
  }

  /**
   * Sends the challenge and answers the hello; every attempt that the agent holds is wanted, from its first byte.
   * @param leaseMs gives a lease, which `renews` then renews; 0: none
   */
  async welcome(agentId?: string, leaseMs = 0): Promise<Hello> {
    this.send({ case: 'challenge', value: { nonce: this.nonce } });
    const hello = await this.next('hello');
    const resume = hello.held.map(({ ref }) => create(LogStoredSchema, ref && { ref }));
    const lease =
      leaseMs === 0 ? {} : { lease: durationFromMs(leaseMs), heartbeatInterval: durationFromMs(leaseMs / 3) };
    this.send({ case: 'welcome', value: { agentId: agentId ?? (hello.agentId || 'agent-1'), resume, ...lease } });
    return hello;
  }

  /** Collects an attempt's standard output until its result, and acknowledges all of it. */
  async collect(): Promise<{ stdout: string; result: AttemptResult }> {
    let stdout = Buffer.alloc(0);
    for (;;) {
      const { message } = await this.#take();
      if (message.case === 'log') {
        const { ref, offset, data } = message.value;
        stdout = Buffer.concat([stdout.subarray(0, Number(offset)), data]);
        const stored = { ...(ref && { ref }), stdoutOffset: BigInt(stdout.length) };
        this.send({ case: 'logStored', value: stored });
      } else if (message.case === 'result') {
        const { ref } = message.value;
        this.send({ case: 'resultStored', value: ref ? { ref } : {} });
        return { stdout: stdout.toString(), result: message.value };
      }
    }
  }

  async #take(): Promise<AgentMessage> {
    for (;;) {
      const wake = this.#wake.promise;
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      await wake;
    }
  }
}

/** A control plane's WebSocket listener on the loopback interface; gone after the test. */
export class LinkServer {
  readonly #server: WebSocketServer;
  readonly #arrived: ServerSide[] = [];
  #wake = Promise.withResolvers<void>();

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on('connection', (socket) => {
      this.#arrived.push(new ServerSide(socket));
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    });
    onTestFinished(async () => {
      for (const client of server.clients) client.terminate();
      await new Promise((resolve) => server.close(resolve));
    });
  }

  static async start(): Promise<LinkServer> {
    const server = new WebSocketServer({
      host: '127.0.0.1',
      port: 0,
      path: LINK_PATH,
      perMessageDeflate: false,
      handleProtocols: (offered) => (offered.has(LINK_SUBPROTOCOL) ? LINK_SUBPROTOCOL : false),
    });
    await once(server, 'listening');
    return new LinkServer(server);
  }

  get httpUrl(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get url(): string {
    return `${this.httpUrl.replace('http', 'ws')}${LINK_PATH}`;
  }

  /** The next WebSocket that an agent opens. */
  async connection(): Promise<ServerSide> {
    for (;;) {
      const wake = this.#wake.promise;
      const side = this.#arrived.shift();
      if (side !== undefined) return side;
      await wake;
    }
  }
}
