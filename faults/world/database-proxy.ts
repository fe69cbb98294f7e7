import { connect, createServer, type Server, type Socket } from 'node:net';

/** Stands between a replica and PostgreSQL, and passes everything on until it is told otherwise. */
export class DatabaseProxy {
  readonly #server: Server;
  readonly #upstream: number;
  readonly #sockets = new Set<Socket>();
  #held = false;

  private constructor(upstream: number) {
    this.#upstream = upstream;
    // What was half sent when one side has ended is of no use to a client of PostgreSQL.
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** @param upstream port of PostgreSQL on this host */
  static async listen(upstream: number): Promise<DatabaseProxy> {
    const proxy = new DatabaseProxy(upstream);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject).listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** Lets nothing through, as a network does that drops everything; connections stay, and so does what was sent. */
  hold(): void {
    this.#held = true;
    for (const socket of this.#sockets) socket.pause();
  }

  release(): void {
    this.#held = false;
    for (const socket of this.#sockets) socket.resume();
  }

  /** Ends all connections with RST, in the middle of whatever they carry. */
  reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.reset();
    await closed;
  }

  #accept(replica: Socket): void {
    const database = connect(this.#upstream, '127.0.0.1');
    this.#join(replica, database);
    this.#join(database, replica);
  }

  #join(from: Socket, to: Socket): void {
    this.#sockets.add(from);
    from.setNoDelay(true).on('error', () => to.resetAndDestroy());
    from.on('data', (data) => {
      if (to.write(data) || this.#held) return;
      from.pause();
      to.once('drain', () => {
        if (!this.#held) from.resume();
      });
    });
    from.on('end', () => to.end());
    from.on('close', () => {
      this.#sockets.delete(from);
      to.destroy();
    });
    if (this.#held) from.pause();
  }
}
