import type { Logger } from '@harrier/shared';
import { ADVISORY_LOCKS } from '../db/advisory-locks.ts';
import { OutageLog } from '../db/outage-log.ts';
import {
  type LeaselessAgent,
  listAbandonedAgents,
  listLeaselessAgents,
  listRecentLeases,
  lookAtLeases,
  nextLeaseEnd,
  recordBrake,
  recordLostAgent,
} from '../db/queries/lost-agents.ts';
import type { Sql } from '../db/sql.ts';
import { brakes, brakeWindowMs, isAttemptLost, leaseEndMs } from '../replica/lease-rules.ts';
import { ReplicaObserver } from '../replica/replica-observer.ts';
import { runAlone } from '../replica/singleton.ts';
import { type ResolvedExecution, runsOnMs } from './resolved-execution.ts';

/** Also while the database fails: whoever has lost an agent waits for the end of its lease and a sweep, and for no pause on top. */
const SWEEP_MS = 1_000;
/** What seldom happens is looked for seldom. */
const SLOW_SWEEP_MS = 15_000;

export interface LeaseSweepOptions {
  sql: Sql;
  leaseMs: number;
  brakeMs: number;
  /**
   * No replica lived before this one: agents get so long to come back, from now on. What they have to tell, of before their
   * leases ended too, nobody could hear.
   */
  graceMs: number;
  logger: Logger;
  /** Ends those of the agent's attempts that are `over`, if the agent has no lease. @returns how long the first of the others has yet; undefined: none is left */
  endAttempts: (
    agentId: string,
    reason: string,
    leftMs: (attempt: ResolvedExecution) => number,
  ) => Promise<number | undefined>;
  /** A replica is gone that was there: what it had is anybody's. */
  onReplicaGone: () => void;
}

/**
 * Ends the attempts of agents whose leases have ended, on one replica at a time: every second, and at the moment at which the
 * next lease ends. It knows nothing but what the database tells, so that any replica can go on where another has died. All of
 * them look, with one statement; whoever finds something to do takes the lock.
 */
export class LeaseSweep {
  readonly #options: LeaseSweepOptions;
  readonly #outage: OutageLog;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #slowMs = Number.NEGATIVE_INFINITY;
  #graceEndMs = 0;
  readonly #observer = new ReplicaObserver();
  /** Agents whose attempts may all run on for a while, and until when they need not be looked at. */
  readonly #waiting = new Map<string, number>();
  #held: ReadonlyMap<string, number> = new Map();
  /** What the database knows of it; undefined: whatever another replica has told. */
  #recordedBrake: string | undefined;

  constructor(options: LeaseSweepOptions) {
    this.#options = options;
    this.#outage = new OutageLog(options.logger, 'leases are looked at again');
  }

  /**
   * Agents whose attempts are kept for them because most of their tenant have gone at once, with the milliseconds that they
   * are kept for, at the last sweep; as far as this replica sweeps.
   */
  get held(): ReadonlyMap<string, number> {
    return this.#held;
  }

  start(): void {
    this.#graceEndMs = performance.now() + this.#options.graceMs;
    this.#arm(0);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#sweeping;
  }

  #arm(ms: number): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#sweeping = this.#run();
    }, ms);
    this.#timer.unref();
  }

  async #run(): Promise<void> {
    let waitMs = SWEEP_MS;
    try {
      const askedMs = performance.now();
      const look = await lookAtLeases(this.#options.sql, SWEEP_MS);
      if (this.#observer.look(look.replicas, askedMs)) this.#options.onReplicaGone();
      waitMs = look.next_ms ?? SWEEP_MS;
      const isSlowDue = askedMs > this.#graceEndMs && askedMs - this.#slowMs > SLOW_SWEEP_MS;
      const isDue = look.is_due || this.#observer.hasSilent || isSlowDue;
      if (!isDue) this.#waiting.clear();
      const sweep = async () => {
        waitMs = await this.#sweep();
      };
      if (!isDue || !(await runAlone(this.#options.sql, ADVISORY_LOCKS.leaseSweep, sweep))) {
        this.#setHeld(new Map());
        this.#recordedBrake = undefined;
      }
    } catch (error) {
      this.#outage.failed('warn', 'leases could not be looked at; trying again', error);
    }
    this.#outage.endRound();
    this.#arm(waitMs);
  }

  /** @returns when to sweep again */
  async #sweep(): Promise<number> {
    const { sql, leaseMs, logger } = this.#options;
    for (const name of await this.#observer.removeDead(sql, leaseMs)) {
      logger.warn({ replica: name }, 'a replica has died; its agents are waited for until their leases end');
    }
    const graceMs = this.#graceEndMs - performance.now();
    if (graceMs > 0) return Math.min(graceMs, SWEEP_MS);
    const agents = await listLeaselessAgents(sql);
    if (performance.now() - this.#slowMs > SLOW_SWEEP_MS) {
      agents.push(...(await listAbandonedAgents(sql, leaseEndMs(0, leaseMs))));
      this.#slowMs = performance.now();
    }
    await this.#findHeld(agents);
    // One that was linked meanwhile has a new lease, and other attempts.
    const ids = new Set(agents.map(({ id }) => id));
    for (const id of this.#waiting.keys()) if (!ids.has(id)) this.#waiting.delete(id);
    for (const agent of agents) if (!this.#held.has(agent.id)) await this.#end(agent);
    return (await nextLeaseEnd(sql, SWEEP_MS))?.inMs ?? SWEEP_MS;
  }

  async #findHeld(agents: readonly LeaselessAgent[]): Promise<void> {
    const { sql, leaseMs, brakeMs } = this.#options;
    if (agents.length === 0) return await this.#hold(new Map());
    const rows = await listRecentLeases(sql, brakeMs + brakeWindowMs(leaseMs));
    const leases = rows.map(({ id, tenant_id: tenantId, left_ms: leftMs }) => {
      return { id, tenantId, leaseEndMs: leftMs ?? undefined };
    });
    await this.#hold(brakes(leases, 0, { leaseMs, brakeMs }));
  }

  /** Callers are told at every replica. */
  async #hold(held: ReadonlyMap<string, number>): Promise<void> {
    this.#setHeld(held);
    const key = [...held.keys()].toSorted().join();
    if (key === this.#recordedBrake) return;
    await recordBrake(this.#options.sql, held);
    this.#recordedBrake = key;
  }

  #setHeld(held: ReadonlyMap<string, number>): void {
    const before = this.#held.size;
    this.#held = held;
    const { logger } = this.#options;
    if (held.size > 0 && before === 0) {
      const facts = { agents: held.size, forMs: Math.round(Math.max(...held.values())) };
      logger.error(
        facts,
        'most agents of a tenant have gone at once; their work is kept for them until most are back, for a while',
      );
    }
    if (held.size === 0 && before > 0) logger.info('work is not kept any more for agents that have gone at once');
  }

  async #end(agent: LeaselessAgent): Promise<void> {
    const { sql, leaseMs, endAttempts } = this.#options;
    const nowMs = performance.now();
    if ((this.#waiting.get(agent.id) ?? nowMs) > nowMs) return;
    this.#waiting.delete(agent.id);
    const who = agent.name === null ? 'the agent was deleted' : `agent ${agent.name} was not linked`;
    const reason = agent.name === null ? who : `${who} for longer than its lease of ${leaseMs / 1000} s`;
    try {
      const endedMs = agent.name === null ? 0 : await recordLostAgent(sql, agent.id);
      // It was linked while those before it were ended.
      if (endedMs === undefined) return;
      const leftOf = (attempt: ResolvedExecution) => {
        const beyondMs = agent.name === null ? 0 : runsOnMs(attempt);
        return isAttemptLost(-endedMs, beyondMs, 0) ? 0 : beyondMs - endedMs;
      };
      const leftMs = await endAttempts(agent.id, reason, leftOf);
      // It may have been given more work in the meantime, by a replica that does not know yet.
      if (leftMs !== undefined) this.#waiting.set(agent.id, nowMs + Math.min(leftMs, SLOW_SWEEP_MS));
    } catch (error) {
      const about = { agentId: agent.id };
      this.#outage.failed('error', 'attempts of a lost agent could not be ended; trying again', error, about);
    }
  }
}
