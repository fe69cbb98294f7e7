import { WaitingConstraint_Kind as Kind } from '@harrier/shared/gen/execution';
import type { Candidate } from '../agent-link/candidate.ts';
import { listUnlinkedAgents } from '../db/queries/agents.ts';
import { readActive } from '../db/queries/claim-limited.ts';
import type { Sql } from '../db/sql.ts';
import { lastingConstraintOf } from '../scheduler/constraint.ts';
import { explainWaiting, type WaitingConstraint } from '../scheduler/place.ts';
import type { Requirement } from '../scheduler/requirement.ts';
import type { Quota, Scheduler } from '../scheduler/scheduler.ts';
import { candidateOf } from './stored-candidate.ts';

/** Agents that an answer names, at most. */
const MAX_NAMED = 100;
/** What is said of limits may be so old: those who wait for one are asked about all at once. */
const CACHE_MS = 1_000;
const MAX_CACHED = 1_000;

export interface WaitingOptions {
  sql: Sql;
  scheduler: Pick<Scheduler, 'constraints' | 'explain'>;
  quotaOf: (tenantId: string) => Quota;
  /** Agents of other replicas. */
  elsewhere: (tenantId: string) => Promise<Candidate[]>;
}

/** Why executions wait, as far as this replica and the database can tell. */
export class Waiting {
  readonly #options: WaitingOptions;
  readonly #limits = new Map<string, { limit: Promise<WaitingConstraint | undefined>; untilMs: number }>();

  constructor(options: WaitingOptions) {
    this.#options = options;
  }

  /** In a sentence. @param executionId empty: of no execution in particular */
  async reason(requirement: Requirement, executionId: string): Promise<string> {
    const limit = await this.#limitReached(requirement);
    if (limit !== undefined) return explainWaiting([limit]);
    const { scheduler, elsewhere } = this.#options;
    return scheduler.explain(requirement, executionId, await elsewhere(requirement.tenantId));
  }

  /** One for each agent, linked or not; those that come nearest to taking it first. */
  async constraints(requirement: Requirement, executionId: string): Promise<WaitingConstraint[]> {
    const { sql, scheduler, elsewhere } = this.#options;
    const { tenantId } = requirement;
    const limit = await this.#limitReached(requirement);
    const linked = scheduler.constraints(requirement, executionId, await elsewhere(tenantId));
    const known = new Set(linked.map(({ agentId }) => agentId));
    const unlinked = (await listUnlinkedAgents(sql, tenantId, MAX_NAMED))
      .filter(({ id }) => !known.has(id))
      .map((row) => offline(requirement, row));
    const all = [...(limit === undefined ? [] : [limit]), ...linked, ...unlinked];
    return all.toSorted((a, b) => Number(a.permanent) - Number(b.permanent)).slice(0, MAX_NAMED);
  }

  /** What keeps it from every agent, whatever is free there. */
  async #limitReached(requirement: Requirement): Promise<WaitingConstraint | undefined> {
    const { tenantId, limit } = requirement;
    if (limit === undefined && this.#options.quotaOf(tenantId) === 'none') return undefined;
    const name = `${tenantId} ${limit?.key ?? ''} ${limit?.maxActive ?? ''}`;
    const cached = this.#limits.get(name);
    if (cached !== undefined && cached.untilMs > performance.now()) return await cached.limit;
    const found = this.#readLimit(requirement);
    if (this.#limits.size >= MAX_CACHED) this.#limits.clear();
    this.#limits.set(name, { limit: found, untilMs: performance.now() + CACHE_MS });
    found.catch(() => this.#limits.delete(name));
    return await found;
  }

  async #readLimit({ tenantId, limit }: Requirement): Promise<WaitingConstraint | undefined> {
    const { sql, quotaOf } = this.#options;
    if (limit !== undefined) {
      const { active } = await readActive(sql, tenantId, limit.key);
      const [kind, name] = limit.key.split(/:(.*)/s);
      const of = kind === 'module' ? `of the module "${name}"` : `with the key "${name}"`;
      if (active >= limit.maxActive) {
        return concurrency(`${active} executions ${of} are under way, at most ${limit.maxActive} may be`);
      }
    }
    const quota = quotaOf(tenantId);
    if (typeof quota !== 'number') return undefined;
    const { active } = await readActive(sql, tenantId, undefined);
    if (active < quota) return undefined;
    return concurrency(`${active} executions of the tenant are under way, at most ${quota} may be`);
  }
}

function concurrency(message: string): WaitingConstraint {
  return { agentId: '', agentName: '', kind: Kind.CONCURRENCY, message, permanent: false };
}

function offline(requirement: Requirement, row: Parameters<typeof candidateOf>[0]): WaitingConstraint {
  const agent = { agentId: row.id, agentName: row.name };
  const lasting = lastingConstraintOf(requirement, candidateOf(row, { active: 0, reservations: [] }));
  // It would not help to start it.
  if (lasting?.permanent === true) return { ...lasting, ...agent };
  const since = row.last_seen_time === null ? '' : ` since ${row.last_seen_time.toISOString()}`;
  return { ...agent, kind: Kind.OFFLINE, message: `not linked${since}`, permanent: false };
}
