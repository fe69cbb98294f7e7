import { randomBytes } from 'node:crypto';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import {
  BatchSender,
  closeReason,
  HarrierError,
  LinkCodec,
  LinkProtocolError,
  type Logger,
  messageOf,
} from '@harrier/shared';
import {
  type AgentMessage,
  Goodbye_Code as GoodbyeCode,
  Goodbye_CodeSchema as GoodbyeCodeSchema,
  type Heartbeat,
  type Hello,
  type ServerMessage,
  ServerMessageSchema,
} from '@harrier/shared/gen/link';
import type { WebSocket } from 'ws';
import { type AgentRow, readAgent, recordCompared, recordUnlink } from '../db/queries/agents.ts';
import type { Sql } from '../db/sql.ts';
import { heartbeatIntervalMs, leaseEndMs } from '../replica/lease-rules.ts';
import { AgentFacts, factsOf } from './agent-facts.ts';
import type { AgentRegistry, LinkedAgent } from './agent-registry.ts';
import { admitAgent } from './handshake.ts';
import type { LinkTraffic } from './link-traffic.ts';
import { type LeaseTerms, SessionLease } from './session-lease.ts';

const NONCE_BYTES = 32;
const HANDSHAKE_DEADLINE_MS = 10_000;
/** An agent sends a ping every 10 s; one that was silent for so long is gone. */
const SILENCE_DEADLINE_MS = 30_000;
/** Bytes that may wait for an agent that does not read; its link is closed beyond that. */
const MAX_BUFFERED_BYTES = 64 * 1024 * 1024;
/** The end of the lease of an agent that has left with nothing: nobody waits for it, and it is not missed. */
const LEFT_LONG_AGO_MS = -7 * 86_400_000;
/** An end of a link that the database could not be told of is told again. */
const RECORD_AGAIN_MS = 500;
/** Private-use WebSocket close codes, RFC 6455 section 7.4.2: 4000 and the number of the goodbye. */
const CLOSE_CODE_BASE = 4000;
const REPLACED = 'a newer link of the same agent took over';

/** What happens on links, told in order for each agent. */
export interface AgentLinkEvents {
  /** The database has the link: older ones of the agent, at other replicas too, are to be closed. */
  onRecorded(agentId: string, session: number): void;
  /**
   * The agent is admitted: answer what it is to keep of what it holds, when the database knows what becomes of the rest. No
   * message of it is handled before that.
   * @param sameProcess the last answer was for the same process of the agent
   */
  onLinked(agent: LinkedAgent, hello: Hello, sameProcess: boolean): Promise<LinkedAnswer>;
  /** The link is gone. When a newer link of the same agent takes over this is told first, then `onLinked`. */
  onUnlinked(agent: LinkedAgent): void;
  /** Anything but hello and heartbeat. May throw LinkProtocolError. */
  onMessage(agent: LinkedAgent, message: AgentMessage['message']): void;
  /** Room may have appeared. */
  onCapacityChanged(): void;
}

export interface LinkedAnswer {
  resume: { executionId: string; attempt: number; stdoutOffset: bigint; stderrOffset: bigint }[];
  drop: { executionId: string; attempt: number }[];
  /** Called when the agent is registered and its welcome is on the way. */
  afterWelcome: () => void;
}

export interface AgentSessionOptions {
  socket: WebSocket;
  sql: Sql;
  registry: AgentRegistry;
  events: AgentLinkEvents;
  logger: Logger;
  /** This replica. */
  replicaId: string;
  leases: LeaseTerms;
  traffic: LinkTraffic;
  /** The database is not told of ends any more once it is aborted: this replica's row is removed. */
  stopping: AbortSignal;
}

/**
 * One link. States: `greeting` (challenge sent) → `admitting` (hello being checked) → `linked` → `closed`; from every state
 * to `closed`.
 */
export class AgentSession {
  readonly #options: AgentSessionOptions;
  readonly #codec = new LinkCodec('server');
  readonly #sender: BatchSender<ServerMessage>;
  /** Until the hello that signs it: what a link keeps, it keeps for each of thousands of agents. */
  #nonce: Uint8Array | undefined;
  #state: 'greeting' | 'admitting' | 'linked' | 'closed' = 'greeting';
  #agent: LinkedAgent | undefined;
  readonly #facts: AgentFacts;
  /** Set when the database has the link. */
  #recorded: { agentId: string; session: number } | undefined;
  #lease: SessionLease | undefined;
  #deadline: NodeJS.Timeout;
  #heardMs = performance.now();

  constructor(options: AgentSessionOptions) {
    this.#options = options;
    this.#sender = new BatchSender((messages) => this.#transmit(messages));
    const { socket, logger } = options;
    this.#facts = new AgentFacts(options);
    socket.on('message', (data, isBinary) => this.#receive(data as Buffer, isBinary));
    socket.on('ping', () => this.#heard());
    socket.on('pong', () => this.#heard());
    socket.on('close', () => this.#ended('the link was closed'));
    socket.on('error', (error) => {
      logger.info({ reason: messageOf(error) }, 'agent link failed');
      socket.terminate();
    });
    this.#deadline = setTimeout(() => socket.terminate(), HANDSHAKE_DEADLINE_MS);
    const nonce = randomBytes(NONCE_BYTES);
    this.#nonce = nonce;
    this.send({ message: { case: 'challenge', value: { nonce } } });
  }

  send(message: MessageInitShape<typeof ServerMessageSchema>): void {
    if (this.#state !== 'closed') this.#sender.send(create(ServerMessageSchema, message));
  }

  /** Number of this link, if it is one of that agent. */
  sessionOf(agentId: string): number | undefined {
    return this.#recorded?.agentId === agentId ? this.#recorded.session : undefined;
  }

  /** Closes the link when the agent has a newer one. */
  closeIfOlder(agentId: string, session: number): void {
    if (this.#recorded === undefined || this.#recorded.agentId !== agentId || this.#recorded.session >= session) return;
    this.close(GoodbyeCode.REPLACED, REPLACED);
  }

  /** Says goodbye and closes. */
  close(code: GoodbyeCode, message: string): void {
    if (this.#state === 'closed') return;
    this.send({ message: { case: 'goodbye', value: { code, message } } });
    this.#sender.flush();
    this.#ended(message, goodbyeName(code));
    this.#options.socket.close(CLOSE_CODE_BASE + code, closeReason(message));
  }

  #heard(): void {
    this.#heardMs = performance.now();
    if (this.#agent !== undefined) this.#agent.lastSeenMs = Date.now();
  }

  #transmit(messages: ServerMessage[]): void {
    const { socket, traffic } = this.#options;
    if (socket.readyState !== socket.OPEN) return;
    try {
      for (const frame of this.#codec.encode(messages)) {
        traffic.sent(frame.length);
        socket.send(frame, { binary: true, compress: false });
      }
    } catch (error) {
      this.#options.logger.error(
        { err: error, agentId: this.#agent?.id },
        'messages could not be sent; closing the link',
      );
      socket.terminate();
    }
    if (socket.bufferedAmount > MAX_BUFFERED_BYTES) {
      this.#options.logger.warn({ agentId: this.#agent?.id }, 'the agent does not read its link; closing it');
      socket.terminate();
    }
  }

  #receive(data: Buffer, isBinary: boolean): void {
    if (this.#state === 'closed') return;
    this.#heard();
    this.#options.traffic.received(data.length);
    try {
      if (!isBinary) throw new LinkProtocolError('a text frame came on a binary link');
      const fragments = this.#state === 'linked';
      for (const { message } of this.#codec.decode(data, { fragments })) this.#handle(message);
    } catch (error) {
      if (!(error instanceof LinkProtocolError)) {
        this.#options.logger.error(
          { err: error, agentId: this.#agent?.id },
          'a message of an agent could not be handled',
        );
      }
      this.close(GoodbyeCode.PROTOCOL_ERROR, messageOf(error));
    }
  }

  #handle(message: AgentMessage['message']): void {
    if (message.case === 'hello') {
      const nonce = this.#nonce;
      if (this.#state !== 'greeting' || nonce === undefined) throw new LinkProtocolError('a second hello came');
      this.#state = 'admitting';
      this.#nonce = undefined;
      this.#admit(message.value, nonce).catch((error: unknown) => {
        this.#options.logger.error({ err: error }, 'an agent could not be admitted');
        this.#options.socket.terminate();
      });
      return;
    }
    if (this.#agent === undefined || this.#state !== 'linked') {
      throw new LinkProtocolError(`"${message.case ?? 'nothing'}" came before the welcome`);
    }
    if (message.case === 'heartbeat') this.#heartbeat(this.#agent, message.value);
    else this.#options.events.onMessage(this.#agent, message);
  }

  async #admit(hello: Hello, nonce: Uint8Array): Promise<void> {
    const { sql, registry, events, logger, replicaId, leases } = this.#options;
    try {
      const before = await admitAgent(sql, hello, nonce, replicaId);
      const session = before.session + 1;
      this.#recorded = { agentId: before.id, session };
      if (this.#closed()) return this.#recordEnd(this.#recorded);
      // A welcome is a promise like a renewal.
      if (!leases.valid()) throw new HarrierError('unavailable', 'this control plane cannot renew leases now');
      if (this.#hasNewer(before.id, session)) return;
      events.onRecorded(before.id, session);
      const agent = this.#linkedAgent(before, session, hello);
      const instanceId = hello.instanceId.replaceAll('\0', '');
      const sameProcess = instanceId !== '' && before.compared_instance_id === instanceId;
      const answer = await events.onLinked(agent, hello, sameProcess);
      // Until this is written a link that breaks changes nothing: the next one is answered like this one.
      if (!sameProcess) await recordCompared(sql, agent.id, session, instanceId);
      if (this.#closed()) return events.onUnlinked(agent);
      if (!leases.valid()) throw new HarrierError('unavailable', 'this control plane cannot renew leases now');
      clearTimeout(this.#deadline);
      if (this.#hasNewer(agent.id, session)) return;
      this.#agent = agent;
      this.#state = 'linked';
      registry.add(agent);
      this.#facts.linked(before, agent);
      this.#options.traffic.opened++;
      this.#deadline = setInterval(() => this.#checkSilence(), SILENCE_DEADLINE_MS / 3);
      this.#lease = new SessionLease(leases, () => this.#leaseEnded());
      this.#welcome(agent, answer);
      logger.info({ agentId: agent.id, agentName: agent.name, held: hello.held.length }, 'agent linked');
      answer.afterWelcome();
      events.onCapacityChanged();
      // It may have been deleted, or linked to another replica, while it was admitted.
      const now = await readAgent(sql, agent.id);
      if (now === undefined) this.close(GoodbyeCode.REVOKED, 'the agent was deleted');
      else this.closeIfOlder(agent.id, now.session);
    } catch (error) {
      const refused = error instanceof HarrierError && error.code !== 'internal' && error.code !== 'unavailable';
      const facts = { reason: messageOf(error), agentName: hello.name };
      if (!(error instanceof HarrierError)) logger.error({ err: error }, 'an agent could not be admitted');
      else if (refused) logger.warn(facts, 'an agent was refused');
      else logger.info(facts, 'an agent was not admitted');
      this.close(refused ? GoodbyeCode.REFUSED : GoodbyeCode.SHUTDOWN, messageOf(error));
    }
  }

  /** The agent has a newer link here, whose record was answered first: this one gives way. */
  #hasNewer(agentId: string, session: number): boolean {
    const linked = this.#options.registry.get(agentId);
    if (linked === undefined) return false;
    if (linked.session > session) {
      this.closeIfOlder(agentId, linked.session);
      return true;
    }
    linked.channel.close(GoodbyeCode.REPLACED, REPLACED);
    return false;
  }

  #closed(): boolean {
    return this.#state === 'closed';
  }

  #linkedAgent(before: AgentRow, session: number, hello: Hello): LinkedAgent {
    const { id, tenant_id, drain_requested: drainRequested } = before;
    return {
      id,
      tenantId: tenant_id,
      name: hello.name,
      labels: hello.labels,
      ...factsOf(hello),
      slots: hello.slots,
      active: 0,
      executions: 0,
      taken: undefined,
      draining: drainRequested,
      stopping: false,
      drainRequested,
      instanceId: hello.instanceId,
      session,
      isolation: hello.isolation?.level ?? 0,
      version: hello.version,
      load: undefined,
      lastSeenMs: Date.now(),
      channel: {
        send: (message) => this.#sender.send(message),
        sendLater: (message) => this.#sender.sendLater(message),
        close: (code, message) => this.close(code as GoodbyeCode, message),
      },
    };
  }

  #welcome(agent: LinkedAgent, answer: LinkedAnswer): void {
    const { leaseMs } = this.#options.leases;
    this.send({
      message: {
        case: 'welcome',
        value: {
          agentId: agent.id,
          heartbeatInterval: durationFromMs(heartbeatIntervalMs(leaseMs)),
          lease: durationFromMs(leaseMs),
          session: BigInt(agent.session),
          resume: answer.resume.map(({ executionId, attempt, stdoutOffset, stderrOffset }) => ({
            ref: { executionId, attempt },
            stdoutOffset,
            stderrOffset,
          })),
          drop: answer.drop,
          draining: agent.drainRequested,
        },
      },
    });
  }

  #heartbeat(agent: LinkedAgent, beat: Heartbeat): void {
    // An agent without numbers counts no lease itself.
    if (this.#lease?.renew() === true && beat.number > 0n) {
      this.send({ message: { case: 'leaseRenewed', value: { heartbeat: beat.number } } });
    }
    this.#facts.told(agent, beat);
  }

  /** An agent that renews its lease no more has stopped its attempts, or is about to: nothing comes over this link that counts. */
  #leaseEnded(): void {
    this.#options.logger.warn({ agentId: this.#agent?.id }, 'the lease of the agent ended; closing its link');
    this.#options.socket.terminate();
  }

  #checkSilence(): void {
    if (performance.now() - this.#heardMs < SILENCE_DEADLINE_MS) return;
    this.#options.logger.warn({ agentId: this.#agent?.id }, 'the agent was silent for too long; closing its link');
    this.#options.socket.terminate();
  }

  /** @param end what is counted: the code of the goodbye, or that there was none */
  #ended(reason: string, end = 'lost'): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    clearTimeout(this.#deadline);
    this.#lease?.stop();
    const { registry, events, traffic, logger } = this.#options;
    if (this.#recorded !== undefined) void this.#recordEnd(this.#recorded);
    const agent = this.#agent;
    if (agent === undefined) return;
    traffic.end(end);
    if (!registry.remove(agent)) return;
    logger.info({ agentId: agent.id, agentName: agent.name, reason }, 'agent unlinked');
    events.onUnlinked(agent);
  }

  /**
   * Tells the database until it knows: without it nobody would ever give the agent's attempts to others. A link that got no
   * welcome renewed nothing, but a former one may have, a moment ago.
   */
  async #recordEnd({ agentId, session }: { agentId: string; session: number }): Promise<void> {
    const { sql, leases, stopping, logger } = this.#options;
    const hasLeft = this.#agent?.stopping === true && this.#agent.executions === 0;
    const endMs = performance.now() + (this.#lease?.leftMs ?? leaseEndMs(0, leases.leaseMs));
    while (!stopping.aborted) {
      try {
        const leaseMs = hasLeft ? LEFT_LONG_AGO_MS : Math.max(0, endMs - performance.now());
        return await recordUnlink(sql, agentId, session, leaseMs);
      } catch (error) {
        if (stopping.aborted) return;
        logger.warn({ agentId, reason: messageOf(error) }, 'the end of a link could not be stored; trying again');
        await new Promise((resolve) => setTimeout(resolve, RECORD_AGAIN_MS).unref());
      }
    }
  }
}

/** As a label. */
function goodbyeName(code: GoodbyeCode): string {
  return (GoodbyeCodeSchema.value[code]?.name ?? String(code)).toLowerCase();
}
