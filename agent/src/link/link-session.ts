import { create } from '@bufbuild/protobuf';
import {
  BatchSender,
  closeReason,
  LINK_SUBPROTOCOL,
  LinkCodec,
  LinkProtocolError,
  MAX_FRAME_BYTES,
  messageOf,
} from '@harrier/shared';
import {
  type AgentMessage,
  AgentMessageSchema,
  type Challenge,
  type Goodbye,
  type Hello,
  type ServerMessage,
  type Welcome,
} from '@harrier/shared/gen/link';
import { WebSocket } from 'ws';
import type { LinkTimings } from './link-timings.ts';

/**
 * One WebSocket to the control plane:
 *
 *   connecting ──challenge──▶ challenged ──welcome──▶ linked
 *        └──────────────────────┴───────────────────────┴──────▶ closed
 *
 * - connecting: the WebSocket opens and the control plane sends its challenge;
 * - challenged: `hello` with the signed challenge was sent;
 * - linked: messages go both ways;
 * - closed: for good; the next try is a new session.
 */
export type LinkState = 'connecting' | 'challenged' | 'linked' | 'closed';

const NEXT: Readonly<Record<LinkState, readonly LinkState[]>> = {
  connecting: ['challenged', 'closed'],
  challenged: ['linked', 'closed'],
  linked: ['closed'],
  closed: [],
};

/** Why a session ended: the control plane's farewell, or what broke. */
export type LinkEnd =
  | { kind: 'goodbye'; code: Goodbye['code']; message: string }
  | { kind: 'lost'; message: string }
  | { kind: 'closed-here' };

/** What went over the links of an agent since its start. */
export interface LinkTraffic {
  framesReceived: number;
  framesSent: number;
  bytesReceived: number;
  bytesSent: number;
}

export interface LinkSessionEvents {
  /** Called once, before any `onMessage`. */
  onWelcome(welcome: Welcome): void;
  /** The hello is about to be sent. */
  onHello(): void;
  onMessage(message: ServerMessage): void;
  /** More is buffered than the network takes, or no longer. */
  onCongestion(congested: boolean): void;
  /** Called once; nothing follows. */
  onEnd(end: LinkEnd): void;
}

/** Beyond this the link is congested: a few frames, so that a slow network holds the sender back soon. */
const CONGESTED_BYTES = 4 * MAX_FRAME_BYTES;
const RELIEVED_BYTES = MAX_FRAME_BYTES;
/** Close codes of RFC 6455, section 7.4.1. */
const CLOSE_NORMAL = 1000;
const CLOSE_PROTOCOL_ERROR = 1002;

export class LinkSession {
  readonly #socket: WebSocket;
  readonly #codec = new LinkCodec('agent');
  readonly #batch = new BatchSender<AgentMessage>((messages) => this.#write(messages));
  readonly #createHello: (challenge: Challenge) => Hello;
  readonly #timings: LinkTimings;
  readonly #events: LinkSessionEvents;
  readonly #traffic: LinkTraffic;
  readonly #handshakeTimer: NodeJS.Timeout;
  #pingTimer: NodeJS.Timeout | undefined;
  #state: LinkState = 'connecting';
  #end: LinkEnd | undefined;
  #lastHeardMs = performance.now();
  #congested = false;

  /**
   * Opens a WebSocket at once.
   * @param createHello the signed answer to a challenge
   * @param traffic what goes over it is added to that
   */
  constructor(
    url: string,
    createHello: (challenge: Challenge) => Hello,
    timings: LinkTimings,
    events: LinkSessionEvents,
    traffic: LinkTraffic,
  ) {
    this.#createHello = createHello;
    this.#timings = timings;
    this.#events = events;
    this.#traffic = traffic;
    this.#socket = new WebSocket(url, LINK_SUBPROTOCOL, {
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      followRedirects: false,
    });
    this.#handshakeTimer = setTimeout(
      () => this.#lose(`no welcome within ${timings.handshakeMs} ms`),
      timings.handshakeMs,
    );
    this.#socket.on('message', (data, isBinary) => this.#receive(data as Buffer, isBinary));
    this.#socket.on('ping', () => this.#hear());
    this.#socket.on('pong', () => this.#hear());
    this.#socket.on('error', (error) => this.#lose(messageOf(error)));
    this.#socket.on('close', (code, reason) => this.#closed(code, reason.toString()));
  }

  get state(): LinkState {
    return this.#state;
  }

  /** Sends in this turn of the event loop, together with what else is sent in it. Only when linked. */
  send(message: AgentMessage): void {
    if (this.#state === 'linked') this.#batch.send(message);
  }

  /** Sends what is pending and closes; `onEnd` follows, in any case before the close deadline. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#batch.flush();
    this.#end ??= { kind: 'closed-here' };
    this.#startClosing(CLOSE_NORMAL, '');
  }

  /** Ends it without a farewell: the other side answers, but is of no use. `onEnd` follows. */
  leave(reason: string): void {
    this.#lose(reason);
  }

  #setState(next: LinkState): void {
    if (!NEXT[this.#state].includes(next))
      throw new LinkProtocolError(`a link cannot go from ${this.#state} to ${next}`);
    this.#state = next;
    if (next === 'linked') {
      clearTimeout(this.#handshakeTimer);
      this.#pingTimer = setInterval(() => this.#ping(), this.#timings.pingIntervalMs);
    } else if (next === 'closed') {
      clearTimeout(this.#handshakeTimer);
      clearInterval(this.#pingTimer);
    }
  }

  #receive(data: Buffer, isBinary: boolean): void {
    if (this.#state === 'closed' || this.#end !== undefined) return;
    this.#hear();
    this.#traffic.framesReceived++;
    this.#traffic.bytesReceived += data.length;
    try {
      if (!isBinary) throw new LinkProtocolError('a text message came');
      for (const message of this.#codec.decode(data)) {
        if (this.#end !== undefined) return;
        this.#handle(message);
      }
    } catch (error) {
      if (!(error instanceof LinkProtocolError)) throw error;
      this.#end = { kind: 'lost', message: error.message };
      this.#startClosing(CLOSE_PROTOCOL_ERROR, closeReason(error.message));
    }
  }

  #handle(message: ServerMessage): void {
    const { case: kind, value } = message.message;
    if (kind === 'goodbye') {
      this.#end = { kind: 'goodbye', code: value.code, message: value.message };
      this.#startClosing(CLOSE_NORMAL, '');
    } else if (kind === 'challenge') {
      this.#setState('challenged');
      this.#events.onHello();
      this.#write([create(AgentMessageSchema, { message: { case: 'hello', value: this.#createHello(value) } })]);
    } else if (kind === 'welcome') {
      this.#setState('linked');
      this.#events.onWelcome(value);
    } else if (this.#state === 'linked') {
      this.#events.onMessage(message);
    } else {
      throw new LinkProtocolError(`"${kind ?? 'unknown'}" came before the welcome`);
    }
  }

  #write(messages: AgentMessage[]): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    for (const frame of this.#codec.encode(messages)) {
      this.#traffic.framesSent++;
      this.#traffic.bytesSent += frame.length;
      this.#socket.send(frame, this.#sent);
    }
    if (!this.#congested && this.#socket.bufferedAmount > CONGESTED_BYTES) {
      this.#congested = true;
      this.#events.onCongestion(true);
    }
  }

  readonly #sent = (): void => {
    if (this.#socket.bufferedAmount <= RELIEVED_BYTES) this.#relieve();
  };

  #relieve(): void {
    if (!this.#congested) return;
    this.#congested = false;
    this.#events.onCongestion(false);
  }

  #hear(): void {
    this.#lastHeardMs = performance.now();
  }

  #ping(): void {
    const silentMs = performance.now() - this.#lastHeardMs;
    if (silentMs >= this.#timings.silenceMs) this.#lose(`nothing was heard for ${Math.round(silentMs)} ms`);
    else if (this.#socket.readyState === WebSocket.OPEN) this.#socket.ping();
  }

  #startClosing(code: number, reason: string): void {
    if (this.#socket.readyState === WebSocket.CONNECTING) {
      this.#socket.terminate();
      return;
    }
    this.#socket.close(code, reason);
    // The other side may be dead: its answer to the close is awaited only so long.
    const timer = setTimeout(() => this.#socket.terminate(), this.#timings.closeMs);
    this.#socket.once('close', () => clearTimeout(timer));
  }

  #lose(message: string): void {
    this.#end ??= { kind: 'lost', message };
    this.#socket.terminate();
  }

  #closed(code: number, reason: string): void {
    if (this.#state === 'closed') return;
    this.#setState('closed');
    this.#relieve();
    this.#events.onEnd(
      this.#end ?? { kind: 'lost', message: `the control plane closed the link (${code}${reason && `: ${reason}`})` },
    );
  }
}
