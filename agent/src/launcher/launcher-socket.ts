import { createConnection, type Socket } from 'node:net';
import { FlushSchedule, messageOf } from '@harrier/shared';
import { encodeHeader, FrameDecoder } from './frame-codec.ts';
import { asFromLauncher, type FromLauncher, type ToLauncher } from './messages.ts';

export interface LauncherSocketEvents {
  onOpen(): void;
  onMessage(message: FromLauncher, body: Buffer): void;
  /** Called once; nothing follows. `error` is undefined when the launcher just closed. */
  onClose(error: Error | undefined): void;
}

/** Below this the parts of a turn are copied into one buffer, which costs less than a vectored write of many parts. */
const COPY_BYTES = 64 * 1024;

/** One connection to the launcher: frames in and out. */
export class LauncherSocket {
  readonly #socket: Socket;
  #parts: Uint8Array[] = [];
  #partBytes = 0;
  readonly #schedule = new FlushSchedule(() => this.#write());
  #error: Error | undefined;

  constructor(path: string, events: LauncherSocketEvents) {
    const decoder = new FrameDecoder((header, body) => events.onMessage(asFromLauncher(header), body));
    this.#socket = createConnection(path, () => events.onOpen());
    this.#socket.on('data', (chunk: Buffer) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        this.destroy(error instanceof Error ? error : new Error(messageOf(error)));
      }
    });
    this.#socket.on('error', (error) => {
      this.#error ??= error;
    });
    this.#socket.on('close', () => events.onClose(this.#error));
  }

  /**
   * Sends together with whatever else is sent in this turn of the event loop.
   * @throws LauncherProtocolError when the message is larger than a frame may be; nothing is sent then
   */
  send(message: ToLauncher, ...body: Uint8Array[]): void {
    this.#add(message, body);
    this.#schedule.soon();
  }

  /** As `send`, for what nobody waits for: with the next message, or a few milliseconds later. */
  sendLater(message: ToLauncher): void {
    this.#add(message, []);
    this.#schedule.later();
  }

  #add(message: ToLauncher, body: Uint8Array[]): void {
    let bodyBytes = 0;
    for (const part of body) bodyBytes += part.length;
    const header = encodeHeader(message, bodyBytes);
    this.#parts.push(header, ...body);
    this.#partBytes += header.length + bodyBytes;
  }

  #write(): void {
    const parts = this.#parts;
    const bytes = this.#partBytes;
    if (parts.length === 0) return;
    this.#parts = [];
    this.#partBytes = 0;
    if (!this.#socket.writable) return;
    if (bytes <= COPY_BYTES) {
      this.#socket.write(Buffer.concat(parts, bytes));
      return;
    }
    this.#socket.cork();
    for (const part of parts) if (part.length > 0) this.#socket.write(part);
    this.#socket.uncork();
  }

  /** Stops taking messages; the launcher's window then holds it back. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Sends what is pending and closes. */
  end(): void {
    this.#schedule.flush();
    this.#socket.resume();
    this.#socket.end();
  }

  destroy(error?: Error): void {
    this.#error ??= error;
    this.#socket.destroy();
  }
}
