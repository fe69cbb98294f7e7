import { connect, type Socket } from 'node:net';

const SEPARATOR = Buffer.from('\r\n\r\n');

/**
 * One caller with one connection, one request at a time: as little of a client as HTTP/1.1 allows, so that the machine's
 * time goes to what is measured.
 */
export class HttpCaller {
  readonly #socket: Socket;
  readonly #head: string;
  #received: Buffer = Buffer.alloc(0);
  #answered: ((body: string) => void) | undefined;
  #failed: ((error: Error) => void) | undefined;

  constructor(url: string, path: string, apiKey: string) {
    const { hostname, port, host } = new URL(url);
    this.#head = `POST ${path} HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer ${apiKey}\r\ncontent-type: application/json\r\n`;
    this.#socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.#socket.on('data', (data: Buffer) => this.#receive(data));
    this.#socket.on('error', (error) => this.#failed?.(error));
    this.#socket.on('close', () => this.#failed?.(new Error('the connection was closed')));
  }

  /** @returns the body of a 200 answer; rejects on anything else. */
  call(body: string): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#answered = resolve;
      this.#failed = reject;
      this.#socket.write(`${this.#head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
    });
  }

  close(): void {
    this.#failed = undefined;
    this.#socket.destroy();
  }

  #receive(data: Buffer): void {
    this.#received = this.#received.length === 0 ? data : Buffer.concat([this.#received, data]);
    const end = this.#received.indexOf(SEPARATOR);
    if (end < 0) return;
    const head = this.#received.toString('latin1', 0, end);
    const length = Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0);
    const start = end + SEPARATOR.length;
    if (this.#received.length < start + length) return;
    const body = this.#received.toString('utf8', start, start + length);
    this.#received = this.#received.subarray(start + length);
    if (head.startsWith('HTTP/1.1 200')) this.#answered?.(body);
    else this.#failed?.(new Error(`${head.split('\r\n')[0]}: ${body}`));
  }
}
