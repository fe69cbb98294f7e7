import { Code } from '@connectrpc/connect';
import { Agent } from '../test/support/agent.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { Front } from '../test/support/front.ts';
import { ExternalPostgres } from '../test/support/postgres.ts';
import { until } from '../test/support/wait.ts';
import { PacedCalls } from './paced-calls.ts';
import { median } from './statistics.ts';

const CALLS_PER_SECOND = 50;
const ROUNDS = 3;
/** Calls that are answered before and after whatever happens. */
const CALM_CALLS = 100;
/** The client of Node.js tells a connection that breaks in the middle of a call as `canceled`. */
const AFTER_DEATH = [Code.Unavailable, Code.Canceled];

/** Two replicas, an agent at each, behind one address: one of them is killed, and they are restarted one after the other. */
export async function measureReplicas(): Promise<Record<string, number>> {
  const postgres = await ExternalPostgres.start();
  const start = (port?: number) =>
    ControlPlane.start({ databaseUrl: postgres.url, ...(port !== undefined && { port }) });
  const replicas = await Promise.all([start(), start()]);
  const front = await Front.open(replicas.map(({ port }) => port));
  const agents: Agent[] = [];
  const restart = async (place: number) => {
    replicas[place] = await start(replicas[place]?.port);
  };
  try {
    for (const [place, replica] of replicas.entries()) {
      const joinToken = await replica.joinToken();
      agents.push(Agent.start({ name: `at-${place}`, serverUrl: front.url, joinToken }));
    }
    await (replicas[0] as ControlPlane).untilOnline(agents.length);
    const { adminKey } = replicas[0] as ControlPlane;
    const longest: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const calls = new PacedCalls(front.url, adminKey, CALLS_PER_SECOND, AFTER_DEATH);
      await calm(calls);
      await replicas[round % 2]?.kill();
      await calm(calls);
      await calls.stop();
      longest.push(Math.max(...calls.done.map(({ ms }) => ms)));
      failIfAny(calls);
      await restart(round % 2);
      await (replicas[round % 2] as ControlPlane).untilOnline(agents.length);
    }
    const calls = new PacedCalls(front.url, adminKey, CALLS_PER_SECOND, [Code.Unavailable]);
    for (const place of replicas.keys()) {
      await calm(calls);
      await replicas[place]?.stop();
      await restart(place);
    }
    await calm(calls);
    await calls.stop();
    return {
      replica_death_ms: median(longest),
      rolling_restart_calls: calls.done.length,
      rolling_restart_failed_calls: calls.done.filter(({ failure }) => failure !== undefined).length,
      rolling_restart_longest_call_ms: Math.max(...calls.done.map(({ ms }) => ms)),
    };
  } finally {
    for (const agent of agents) await agent.remove();
    await front.close();
    await Promise.all(replicas.map((replica) => replica.program.running && replica.stop()));
    await postgres.stop();
  }
}

async function calm(calls: PacedCalls): Promise<void> {
  const before = calls.done.length;
  await until('calls to be answered', () => calls.done.length >= before + CALM_CALLS);
}

function failIfAny(calls: PacedCalls): void {
  const failed = calls.done.find(({ failure }) => failure !== undefined);
  if (failed !== undefined) throw new Error(`a call failed: ${failed.failure}`);
}
