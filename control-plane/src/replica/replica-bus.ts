import { type Logger, messageOf } from '@harrier/shared';
import type { Sql } from '../db/sql.ts';
import type { BusMessage } from './bus-message.ts';

/** To all other replicas, or to the one with this id. */
export type BusTarget = 'all' | (string & {});

/** A payload has less than 8,000 bytes: https://www.postgresql.org/docs/current/sql-notify.html */
const MAX_PAYLOAD_BYTES = 7_900;
/** After a notification, how long further ones are gathered: one commit does for all of them. */
const GATHER_MS = 20;
/** Both channels are listened to again at about the same time, and the driver may have asked for it several times meanwhile. */
const GAP_GATHER_MS = 50;
/** A connection that hears nothing, not even of ourselves, is dead. */
const PROBE_MS = 10_000;
const SILENCE_MS = 25_000;

export interface ReplicaBusOptions {
  /** Opens a pool of one connection, for listening. */
  connect: () => Sql;
  /** For telling. */
  sql: Sql;
  replicaId: string;
  logger: Logger;
  onMessage: (message: BusMessage, from: string) => void;
  /** Notifications may have been missed: the connection was away. */
  onGap: () => void;
}

interface Envelope {
  from: string;
  messages: BusMessage[];
}

/**
 * Carries messages between the replicas by LISTEN and NOTIFY, in the order in which one replica sends them to another. The
 * first one goes at once; those that come within a moment after it go together.
 */
export class ReplicaBus {
  readonly #options: ReplicaBusOptions;
  /** Since the start; `gaps`: times that notifications may have been missed. */
  readonly counts = { received: 0, sent: 0, gaps: 0 };
  readonly #waiting = new Map<BusTarget, Set<string>>();
  #listener: Sql | undefined;
  #listening = 0;
  #gathering: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();
  #probe: NodeJS.Timeout | undefined;
  #heardMs = 0;
  #gap: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: ReplicaBusOptions) {
    this.#options = options;
  }

  /** Resolves when nothing that is sent from now on is missed. */
  async start(): Promise<void> {
    await this.#listen();
    this.#probe = setInterval(() => this.#checkListener(), PROBE_MS);
    this.#probe.unref();
  }

  /** Queues a message; an equal one that waits already does for both. */
  send(to: BusTarget, message: BusMessage): void {
    if (this.#stopped || to === this.#options.replicaId) return;
    this.#queue(to, JSON.stringify(message));
  }

  /** Sends what waits, and listens no more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#probe);
    clearTimeout(this.#gathering);
    clearTimeout(this.#gap);
    this.#flush();
    await this.#sending;
    await this.#listener?.end({ timeout: 1 });
  }

  #queue(to: BusTarget, text: string): void {
    const messages = this.#waiting.get(to);
    if (messages === undefined) this.#waiting.set(to, new Set([text]));
    else messages.add(text);
    if (this.#gathering !== undefined) return;
    // What comes in the same turn goes along.
    this.#gathering = setTimeout(() => {
      this.#flush();
      this.#gathering = setTimeout(() => {
        this.#gathering = undefined;
        if (this.#waiting.size > 0) this.#flush();
      }, GATHER_MS);
      this.#gathering.unref();
    }, 0);
  }

  #flush(): void {
    const { replicaId, sql, logger } = this.#options;
    const channels: string[] = [];
    const payloads: string[] = [];
    for (const [to, messages] of this.#waiting) {
      this.counts.sent += messages.size;
      for (const payload of pack(replicaId, messages)) {
        channels.push(channelOf(to));
        payloads.push(payload);
      }
    }
    this.#waiting.clear();
    if (payloads.length === 0) return;
    // One after the other: two statements on two connections would not keep the order.
    this.#sending = this.#sending
      .then(async () => {
        await sql`SELECT pg_notify(channel, payload)
          FROM unnest(${channels}::text[], ${payloads}::text[]) WITH ORDINALITY AS given(channel, payload, place)
          ORDER BY place`;
      })
      .catch((error: unknown) => logger.warn({ reason: messageOf(error) }, 'the other replicas were not told'));
  }

  async #listen(): Promise<void> {
    const listener = this.#options.connect();
    this.#listener = listener;
    this.#heardMs = performance.now();
    let listens = 0;
    const heard = (payload: string) => {
      if (this.#listener === listener) this.#heard(payload);
    };
    // Called again each time that the driver has connected anew.
    const listened = () => {
      if (this.#listener !== listener) return;
      this.#heardMs = performance.now();
      if (++listens <= 2 && this.#listening === 0) return;
      this.#tellGap();
    };
    await listener.listen(channelOf('all'), heard, listened);
    await listener.listen(channelOf(this.#options.replicaId), heard, listened);
    this.#listening++;
  }

  #tellGap(): void {
    if (this.#gap !== undefined || this.#stopped) return;
    this.#gap = setTimeout(() => {
      this.#gap = undefined;
      this.counts.gaps++;
      this.#options.onGap();
    }, GAP_GATHER_MS);
    this.#gap.unref();
  }

  #heard(payload: string): void {
    this.#heardMs = performance.now();
    let envelope: Envelope;
    try {
      envelope = JSON.parse(payload) as Envelope;
    } catch {
      // Somebody else's.
      return;
    }
    if (envelope.from === this.#options.replicaId) return;
    this.counts.received += envelope.messages.length;
    for (const message of envelope.messages) {
      try {
        this.#options.onMessage(message, envelope.from);
      } catch (error) {
        this.#options.logger.error(
          { err: error, type: message.type },
          'what another replica told could not be handled',
        );
      }
    }
  }

  /** A connection can be dead without a sign of it; our own notifications would come back on one that lives. */
  #checkListener(): void {
    if (performance.now() - this.#heardMs > SILENCE_MS) {
      this.#options.logger.warn('nothing is heard of the other replicas; listening on a new connection');
      const dead = this.#listener;
      this.#listen().catch((error: unknown) => {
        this.#options.logger.warn({ reason: messageOf(error) }, 'the new connection could not be opened');
      });
      dead?.end({ timeout: 0 }).catch(() => undefined);
    }
    this.#waiting.set(this.#options.replicaId, new Set());
    this.#flush();
  }
}

function channelOf(to: BusTarget): string {
  return `harrier_${to.replaceAll('-', '')}`;
}

/** As few payloads as they fit into; at least one. */
function* pack(from: string, messages: Iterable<string>): Generator<string> {
  const wrap = (texts: string[]) => `{"from":"${from}","messages":[${texts.join(',')}]}`;
  const emptyBytes = Buffer.byteLength(wrap([]));
  let texts: string[] = [];
  let bytes = emptyBytes;
  for (const text of messages) {
    const textBytes = Buffer.byteLength(text) + 1;
    if (texts.length > 0 && bytes + textBytes > MAX_PAYLOAD_BYTES) {
      yield wrap(texts);
      texts = [];
      bytes = emptyBytes;
    }
    texts.push(text);
    bytes += textBytes;
  }
  yield wrap(texts);
}
