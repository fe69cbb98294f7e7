import { createServer, connect as dial, type Server, type Socket } from 'node:net';

/** What stands before replicas, as a load balancer does: each connection goes to the first one that takes it, in turns. */
export class Front {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #targets: readonly number[];
  #turn = 0;

  private constructor(targets: readonly number[]) {
    this.#targets = targets;
    this.#server = createServer((socket) => {
      this.#keep(socket);
      this.#connect(socket, this.#targets.length);
    });
  }

  /** @param targets ports of the loopback interface */
  static async open(targets: readonly number[]): Promise<Front> {
    const front = new Front(targets);
    await new Promise<void>((resolve) => front.#server.listen(0, '127.0.0.1', resolve));
    return front;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** New connections go to these. */
  to(targets: readonly number[]): void {
    this.#targets = targets;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connect(socket: Socket, tries: number): void {
    const port = this.#targets[this.#turn++ % this.#targets.length];
    if (port === undefined || tries === 0) {
      socket.destroy();
      return;
    }
    const target = dial(port, '127.0.0.1');
    this.#keep(target);
    const refused = () => this.#connect(socket, tries - 1);
    target.once('error', refused);
    target.once('connect', () => {
      target.off('error', refused);
      socket.pipe(target).pipe(socket);
      socket.once('close', () => target.destroy());
      target.once('close', () => socket.destroy());
    });
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => this.#sockets.delete(socket));
  }
}
