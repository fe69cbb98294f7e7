import type { Logger } from '@harrier/shared';
import type { AgentMessage, Challenge, Hello, ServerMessage, Welcome } from '@harrier/shared/gen/link';
import { type LinkEnd, LinkSession } from './link-session.ts';
import type { LinkTimings } from './link-timings.ts';
import { afterLink } from './reconnect-policy.ts';

/** For a control plane that is busy. */
const MIN_HANDSHAKE_MS = 1_000;

export interface AgentLinkEvents {
  /** A control plane is about to be dialled. */
  onDial(): void;
  /** A hello is about to be sent. */
  onHello(): void;
  /** The link is up. */
  onUp(welcome: Welcome): void;
  /** The link is down and comes back by itself, or `onGiveUp` follows. Only after `onUp`. */
  onDown(): void;
  onMessage(message: ServerMessage): void;
  onCongestion(congested: boolean): void;
  /** The control plane does not want this agent, or not this process: no more tries. */
  onGiveUp(reason: string): void;
}

export interface AgentLinkOptions {
  /** `ws://host:port/agent/v1/link` of each control plane, in the order in which they are dialled. */
  urls: readonly [string, ...string[]];
  timings: LinkTimings;
  /**
   * How long to wait between two tries, at most, and half of how long a try may take until its welcome; infinite: as long as
   * the timings say.
   */
  patienceMs: () => number;
  /** @param dial number of the try, from 1 */
  createHello: (challenge: Challenge, dial: number) => Hello;
  events: AgentLinkEvents;
  logger: Logger;
}

/** Keeps one session to one of the control planes open, session after session, until it is closed or told to stay away. */
export class AgentLink {
  readonly #options: AgentLinkOptions;
  #session: LinkSession | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #linkedAtMs: number | undefined;
  #failures = 0;
  /** Tries so far. */
  #dials = 0;
  #opened = 0;
  readonly #traffic = { framesReceived: 0, framesSent: 0, bytesReceived: 0, bytesSent: 0 };
  #closing: PromiseWithResolvers<void> | undefined;

  constructor(options: AgentLinkOptions) {
    this.#options = options;
  }

  get linked(): boolean {
    return this.#session?.state === 'linked';
  }

  /** Tries, links that were admitted, and what went over them, since the start. */
  get counts() {
    return { dials: this.#dials, opened: this.#opened, ...this.#traffic };
  }

  open(): void {
    const { urls, createHello, events, patienceMs } = this.#options;
    // A control plane that takes the connection and says nothing must not cost the lease while others may answer.
    const handshakeMs = Math.min(this.#options.timings.handshakeMs, Math.max(MIN_HANDSHAKE_MS, 2 * patienceMs()));
    const timings = { ...this.#options.timings, handshakeMs };
    const url = urls[this.#dials++ % urls.length] ?? urls[0];
    const dial = this.#dials;
    this.#linkedAtMs = undefined;
    events.onDial();
    const sessionEvents = {
      onHello: events.onHello,
      onWelcome: (welcome: Welcome) => {
        this.#linkedAtMs = performance.now();
        this.#opened++;
        this.#options.logger.info({ agentId: welcome.agentId, url }, 'linked to the control plane');
        events.onUp(welcome);
      },
      onMessage: events.onMessage,
      onCongestion: events.onCongestion,
      onEnd: (end: LinkEnd) => this.#ended(end),
    };
    const hello = (challenge: Challenge) => createHello(challenge, dial);
    this.#session = new LinkSession(url, hello, timings, sessionEvents, this.#traffic);
  }

  /** Only when linked; otherwise the message is dropped, and what it told is told again after the next welcome. */
  send(message: AgentMessage): void {
    this.#session?.send(message);
  }

  /** Ends a link that is of no use, and seeks another one. */
  leave(reason: string): void {
    this.#session?.leave(reason);
  }

  /** Sends what is pending, closes and stays closed. Safe to call at any time, also twice. */
  close(): Promise<void> {
    this.#closing ??= Promise.withResolvers();
    clearTimeout(this.#retryTimer);
    if (this.#session === undefined || this.#session.state === 'closed') this.#closing.resolve();
    else this.#session.close();
    return this.#closing.promise;
  }

  #ended(end: LinkEnd): void {
    const { logger, events, timings, urls } = this.#options;
    const linkedMs = this.#linkedAtMs === undefined ? 0 : performance.now() - this.#linkedAtMs;
    if (this.#linkedAtMs !== undefined) events.onDown();
    if (this.#closing !== undefined) {
      this.#closing.resolve();
      return;
    }
    const history = { failures: this.#failures, linkedMs, urls: urls.length };
    const maxMs = Math.min(timings.backoff.maxMs, this.#options.patienceMs());
    const next = afterLink(end, history, { ...timings, backoff: { ...timings.backoff, maxMs } });
    if (next.kind === 'give-up') {
      events.onGiveUp(next.reason);
      return;
    }
    this.#failures = next.failures;
    const reason = end.kind === 'closed-here' ? '' : end.message;
    logger.warn({ reason, waitMs: Math.round(next.waitMs), failures: next.failures }, 'no link; trying again');
    this.#retryTimer = setTimeout(() => this.open(), next.waitMs);
  }
}
