import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Code, ConnectError } from '@connectrpc/connect';
import { type Agent, Agent_State as AgentState } from '@harrier/shared/gen/agent';
import { isConnectionLoss } from '../connection/call-error.ts';
import type { Clients } from '../connection/clients.ts';
import { CliError, EXIT } from '../failure.ts';

const POLL_MS = 50;

/** The id that the agent in this directory joined with; undefined when it has not joined. */
export async function joinedAgentId(agentDirectory: string): Promise<string | undefined> {
  try {
    const file = JSON.parse(await readFile(join(agentDirectory, 'identity.json'), 'utf8')) as { agentId?: unknown };
    return typeof file.agentId === 'string' && file.agentId !== '' ? file.agentId : undefined;
  } catch {
    // Missing, or damaged: then the agent itself says so.
    return undefined;
  }
}

/** Waits until the agent of the directory is linked. @throws CliError after the deadline */
export async function linkedAgent(
  client: Clients['agents'],
  agentDirectory: string,
  { deadlineMs, signal }: { deadlineMs: number; signal: AbortSignal },
): Promise<Agent> {
  const end = performance.now() + deadlineMs;
  while (performance.now() < end) {
    const id = await joinedAgentId(agentDirectory);
    const agent = id === undefined ? undefined : await find(client, id);
    if (agent !== undefined && agent.state !== AgentState.OFFLINE) return agent;
    await wait(POLL_MS, undefined, { signal });
  }
  throw new CliError(`the agent did not link within ${deadlineMs / 1000} s`, EXIT.failed);
}

async function find(client: Clients['agents'], id: string): Promise<Agent | undefined> {
  try {
    return (await client.getAgent({ id })).agent;
  } catch (error) {
    if (isConnectionLoss(error) || (error instanceof ConnectError && error.code === Code.NotFound)) return undefined;
    throw error;
  }
}
