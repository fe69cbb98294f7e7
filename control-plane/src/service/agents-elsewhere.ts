import type { Candidate } from '../agent-link/candidate.ts';
import { listAgentsElsewhere } from '../db/queries/agents.ts';
import type { Sql } from '../db/sql.ts';
import { candidateOf } from './stored-candidate.ts';

/** What is said of agents elsewhere may be so old. */
const CACHE_MS = 1_000;

export interface AgentsElsewhereOptions {
  sql: Sql;
  /** This replica. */
  replicaId: string;
  /** Whether there is another replica. */
  alone: () => boolean;
}

/** The agents that are linked to other replicas, as far as the database tells: nothing is placed onto them from here. */
export class AgentsElsewhere {
  readonly #options: AgentsElsewhereOptions;
  readonly #cached = new Map<string, { agents: Promise<Candidate[]>; untilMs: number }>();

  constructor(options: AgentsElsewhereOptions) {
    this.#options = options;
  }

  async candidates(tenantId: string): Promise<Candidate[]> {
    const { sql, replicaId, alone } = this.#options;
    if (alone()) return [];
    const cached = this.#cached.get(tenantId);
    if (cached !== undefined && cached.untilMs > performance.now()) return await cached.agents;
    const agents = listAgentsElsewhere(sql, tenantId, replicaId).then((rows) =>
      rows.map((row) => candidateOf(row, row)),
    );
    this.#cached.set(tenantId, { agents, untilMs: performance.now() + CACHE_MS });
    agents.catch(() => this.#cached.delete(tenantId));
    return await agents;
  }
}
