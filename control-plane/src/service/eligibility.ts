import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { listAgentEnvironments } from '../db/queries/agents.ts';
import type { Sql } from '../db/sql.ts';
import { lackOf, SLURM, slurmLack } from '../scheduler/constraint.ts';
import type { Requirement } from '../scheduler/requirement.ts';

/** Agents that a message names, at most. */
const MAX_NAMED = 20;
/** A Docker engine that is restarted, or an agent that is started anew beside one, has its environment again within that. */
const LATELY_MS = 60_000;

/** Why none of the agents that have joined can prepare an environment, linked or not. */
export interface NoneCan {
  message: string;
  /** The reason by the agent's name. */
  agents: Record<string, string>;
}

/**
 * Whether an execution waits for what no agent can do.
 * @returns undefined when an agent can prepare the environment, now or when it is linked again, or could a moment ago, and
 * when none has joined yet
 */
export async function whyNoneCan(
  sql: Sql,
  registry: AgentRegistry,
  requirement: Requirement,
): Promise<NoneCan | undefined> {
  const { tenantId, environment } = requirement;
  const lackOfAgent = (agent: Parameters<typeof lackOf>[1]) =>
    lackOf(environment, agent) ?? slurmLack(requirement, agent);
  for (const linked of registry.candidates()) {
    if (linked.tenantId === tenantId && lackOfAgent(linked) === undefined) return undefined;
  }
  const reasons: Record<string, string> = {};
  const rows = await listAgentEnvironments(sql, tenantId, LATELY_MS);
  for (const row of rows) {
    // What a linked agent says is newer than what is stored.
    const agent = registry.get(row.id) ?? {
      environments: new Set(row.environments),
      unavailableEnvironments: row.unavailable_environments,
    };
    const lack = lackOfAgent(agent);
    const lately = { environments: new Set([...row.environments, ...row.lately]), unavailableEnvironments: {} };
    if (lack === undefined || lackOfAgent(lately) === undefined) return undefined;
    if (isSlurmAway(requirement, agent)) return undefined;
    reasons[row.name] = lack;
  }
  const named = Object.entries(reasons).slice(0, MAX_NAMED);
  if (named.length === 0) return undefined;
  const listed = named.map(([name, reason]) => `${name}: ${reason}`).join('; ');
  const more = rows.length > MAX_NAMED ? `; and ${rows.length - MAX_NAMED} more` : '';
  return { message: `no agent can run this: ${listed}${more}`, agents: Object.fromEntries(named) };
}

/** A cluster that does not answer is one that will. */
function isSlurmAway(requirement: Requirement, agent: Parameters<typeof lackOf>[1]): boolean {
  return (
    slurmLack(requirement, agent) !== undefined &&
    agent.unavailableEnvironments[SLURM] !== undefined &&
    lackOf(requirement.environment, agent) === undefined
  );
}
