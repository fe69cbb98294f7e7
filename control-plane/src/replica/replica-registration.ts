import { type Logger, messageOf } from '@harrier/shared';
import { OutageLog } from '../db/outage-log.ts';
import { beatReplica, removeReplica } from '../db/queries/replicas.ts';
import type { Sql } from '../db/sql.ts';
import { leaseEndMs, mayRenew, REPLICA_VALID_MS } from './lease-rules.ts';

/** Three of them may fail before the replica may not renew leases any more: that is why it never beats more slowly. */
const BEAT_MS = 2_000;

export interface ReplicaRegistrationOptions {
  sql: Sql;
  /** New for every start. */
  id: string;
  /** Host and process, for people. */
  name: string;
  leaseMs: number;
  logger: Logger;
  /** The others took this replica for dead, and it is back: what it believed of its agents may not be true any more. */
  onRevived: () => void;
}

/** The row that says that this replica lives, kept fresh. */
export class ReplicaRegistration {
  readonly #options: ReplicaRegistrationOptions;
  readonly #outage: OutageLog;
  #beatMs: number | undefined;
  #others = 0;
  #beating: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ReplicaRegistrationOptions) {
    this.#options = options;
    this.#outage = new OutageLog(options.logger, 'the database hears of this replica again');
  }

  get id(): string {
    return this.#options.id;
  }

  /** Whether leases may be renewed now: the database has heard of this replica lately. */
  get valid(): boolean {
    return mayRenew(this.#beatMs, performance.now());
  }

  /** Whether no other replica lived at the last beat: nobody needs to be told anything. */
  get alone(): boolean {
    return this.#others === 0;
  }

  /** Rejects when the database does not take the first beat. */
  async start(): Promise<void> {
    await this.#beat();
    this.#timer = setInterval(() => this.look(), BEAT_MS);
    this.#timer.unref();
  }

  /** Beats out of turn: others may have come or gone. */
  look(): void {
    this.#beating ??= this.#beat()
      .catch((error: unknown) =>
        this.#outage.failed('warn', 'the database was not told that this replica lives; trying again', error),
      )
      .finally(() => {
        this.#outage.endRound();
        this.#beating = undefined;
      });
  }

  /** Replicas that share the database, as of the last beat. */
  get replicas(): number {
    return this.#others + 1;
  }

  /** Call it when no link of an agent is open any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#beating;
    const { sql, id, leaseMs, logger } = this.#options;
    this.#beatMs = undefined;
    try {
      await removeReplica(sql, id, leaseEndMs(0, leaseMs));
    } catch (error) {
      logger.warn({ reason: messageOf(error) }, 'the database was not told of the stop; the others will notice');
    }
  }

  async #beat(): Promise<void> {
    const { sql, id, name, onRevived } = this.#options;
    // Counted from before the statement was sent: the row is not older than that.
    const sentMs = performance.now();
    const { made, others } = await beatReplica(sql, { id, name, validMs: REPLICA_VALID_MS });
    const revived = made && this.#beatMs !== undefined;
    this.#others = others;
    if (revived) {
      this.#options.logger.warn('the other replicas took this one for dead; its agents have to link anew');
      onRevived();
    }
    this.#beatMs = sentMs;
  }
}
