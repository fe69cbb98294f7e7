import { connect, createServer, type Server, type Socket } from 'node:net';
import { isDataFrame, WebSocketFrames } from './websocket-frames.ts';

export type Direction = 'to agent' | 'to replica';

/** A connection that goes through a proxy. */
export interface Passage {
  /** Ends both sides as a crash of the network does: with RST. */
  reset(): void;
}

/**
 * What becomes of a frame: calls `forward` with bytes, at once or later, as often as it likes. Frames of one direction come
 * one after the other.
 */
export type FrameFault = (frame: Buffer, forward: (bytes: Buffer) => void, passage: Passage) => void;

/**
 * Stands between an agent and a replica, on an address of the agent's network. It passes everything on, byte for
 * byte, until it is told to treat frames in another way.
 */
export class LinkProxy {
  readonly #server: Server;
  /** Port of the replica on this host. */
  readonly #upstream: number;
  readonly #passages = new Set<LinkPassage>();
  readonly #faults: Partial<Record<Direction, FrameFault>> = {};
  readonly #held = new Set<Direction>();
  #port = 0;

  private constructor(upstream: number) {
    this.#upstream = upstream;
    this.#server = createServer((socket) => void this.#accept(socket));
  }

  static async listen(address: string, upstream: number): Promise<LinkProxy> {
    const proxy = new LinkProxy(upstream);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject).listen(0, address, resolve);
    });
    proxy.#port = (proxy.#server.address() as { port: number }).port;
    return proxy;
  }

  get port(): number {
    return this.#port;
  }

  /** @param fault undefined: frames pass as they are */
  treatFrames(direction: Direction, fault: FrameFault | undefined): void {
    if (fault === undefined) delete this.#faults[direction];
    else this.#faults[direction] = fault;
  }

  /** Lets nothing through, as a network does that drops everything; what was sent meanwhile comes when it is released. */
  hold(direction: Direction): void {
    this.#held.add(direction);
    for (const passage of this.#passages) passage.pause(direction);
  }

  release(): void {
    this.#held.clear();
    for (const passage of this.#passages) passage.resume();
  }

  reset(): void {
    for (const passage of this.#passages) passage.reset();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.reset();
    await closed;
  }

  async #accept(agent: Socket): Promise<void> {
    agent.on('error', () => undefined);
    const replica = await dial(this.#upstream);
    if (replica === undefined) {
      agent.resetAndDestroy();
      return;
    }
    const passage = new LinkPassage(agent, replica, (direction) => this.#faults[direction]);
    this.#passages.add(passage);
    for (const direction of this.#held) passage.pause(direction);
    await passage.ended;
    this.#passages.delete(passage);
  }
}

class LinkPassage implements Passage {
  readonly ended: Promise<void>;
  readonly #agent: Socket;
  readonly #replica: Socket;
  readonly #fault: (direction: Direction) => FrameFault | undefined;

  constructor(agent: Socket, replica: Socket, fault: (direction: Direction) => FrameFault | undefined) {
    this.#agent = agent;
    this.#replica = replica;
    this.#fault = fault;
    for (const socket of [agent, replica]) socket.setNoDelay(true).on('error', () => undefined);
    this.#join(agent, replica, 'to replica');
    this.#join(replica, agent, 'to agent');
    this.ended = new Promise((resolve) => {
      let open = 2;
      for (const socket of [agent, replica]) socket.once('close', () => --open === 0 && resolve());
    });
  }

  reset(): void {
    this.#agent.resetAndDestroy();
    this.#replica.resetAndDestroy();
  }

  pause(direction: Direction): void {
    (direction === 'to agent' ? this.#replica : this.#agent).pause();
  }

  resume(): void {
    this.#agent.resume();
    this.#replica.resume();
  }

  #join(from: Socket, to: Socket, direction: Direction): void {
    const frames = new WebSocketFrames();
    const forward = (bytes: Buffer) => {
      if (to.writable) to.write(bytes);
    };
    from.on('data', (data: Buffer) => {
      for (const part of frames.add(data)) {
        const fault = this.#fault(direction);
        if (fault !== undefined && isDataFrame(part)) fault(part, forward, this);
        else forward(part);
      }
    });
    from.on('end', () => to.end());
    from.on('close', () => to.destroy());
  }
}

function dial(port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(socket)).once('error', () => resolve(undefined));
  });
}
