import type { Sql } from '../sql.ts';

/** A question to an agent that is linked to another replica than the one that asks. */
export interface AgentQuestionRow {
  id: string;
  tenant_id: string;
  agent_id: string;
  asker_id: string;
  /** harrier.v1.ServerMessage, encoded, whose question has no id. */
  question: Uint8Array;
  /** For how long the asker waits, at most. */
  left_ms: number;
}

/**
 * Leaves a question for the replica that the agent is linked to; what nobody has fetched in time goes.
 * @returns that replica; undefined when the agent is not linked
 */
export async function insertAgentQuestion(
  sql: Sql,
  asked: { id: string; tenantId: string; agentId: string; askerId: string; question: Uint8Array; ttlMs: number },
): Promise<string | undefined> {
  const [row] = await sql<{ replica_id: string }[]>`
    WITH expired AS (DELETE FROM agent_questions WHERE expire_time < now())
    INSERT INTO agent_questions (id, tenant_id, agent_id, replica_id, asker_id, question, expire_time)
    SELECT ${asked.id}, tenant_id, id, replica_id, ${asked.askerId}, ${asked.question},
      now() + ${asked.ttlMs}::float8 * interval '1 millisecond'
    FROM agents WHERE tenant_id = ${asked.tenantId} AND id = ${asked.agentId} AND replica_id IS NOT NULL
    RETURNING replica_id`;
  return row?.replica_id;
}

/** Questions that a replica has to answer yet. */
export async function listAgentQuestions(sql: Sql, replicaId: string): Promise<AgentQuestionRow[]> {
  return await sql<AgentQuestionRow[]>`
    SELECT id, tenant_id, agent_id, asker_id, question,
      extract(epoch FROM expire_time - now())::float8 * 1000 AS left_ms
    FROM agent_questions
    WHERE replica_id = ${replicaId} AND answer IS NULL AND error IS NULL AND expire_time > now()`;
}

/** @param answer harrier.v1.AgentMessage, encoded; or why there is none */
export async function answerAgentQuestion(
  sql: Sql,
  id: string,
  answer: { answer: Uint8Array } | { error: string },
): Promise<void> {
  await sql`UPDATE agent_questions SET ${sql(answer)} WHERE id = ${id}`;
}

/** What has become of a question. */
export interface AgentQuestionState {
  answer: Uint8Array | null;
  error: string | null;
  /** The agent is not linked to the replica any more that was asked. */
  is_moved: boolean;
}

/** @returns undefined when it has expired */
export async function readAgentQuestion(sql: Sql, id: string): Promise<AgentQuestionState | undefined> {
  const [row] = await sql<AgentQuestionState[]>`
    SELECT answer, error, agents.replica_id IS DISTINCT FROM q.replica_id AS is_moved
    FROM agent_questions AS q LEFT JOIN agents ON agents.id = q.agent_id
    WHERE q.id = ${id} AND expire_time > now()`;
  return row;
}

export async function deleteAgentQuestion(sql: Sql, id: string): Promise<void> {
  await sql`DELETE FROM agent_questions WHERE id = ${id}`;
}
