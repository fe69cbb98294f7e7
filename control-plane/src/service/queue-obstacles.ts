import { WaitingConstraint_Kind as Kind } from '@harrier/shared/gen/execution';
import type { WaitingExecution } from '../db/queries/claim-executions.ts';
import { deepestLanes } from '../db/queries/deepest-lanes.ts';
import type { Sql } from '../db/sql.ts';
import type { WaitingConstraint } from '../scheduler/place.ts';

/** Lanes that are looked at: those in which most waits. */
const MAX_LANES = 16;

export interface QueueObstacle {
  taskClass: string;
  kind: Kind;
  executions: number;
}

/**
 * What keeps the executions that wait from agents, by task class. All of a lane ask the same, so its first says it for all.
 * @param constraintsOf what keeps an execution from each agent
 */
export async function queueObstacles(
  sql: Sql,
  constraintsOf: (waiting: WaitingExecution) => Promise<readonly WaitingConstraint[]>,
): Promise<QueueObstacle[]> {
  const found = new Map<string, QueueObstacle>();
  for (const { taskClass, depth, first } of await deepestLanes(sql, MAX_LANES)) {
    const kind = nearestObstacle(await constraintsOf(first));
    const key = `${taskClass} ${kind}`;
    const known = found.get(key);
    if (known === undefined) found.set(key, { taskClass, kind, executions: depth });
    else known.executions += depth;
  }
  return [...found.values()];
}

/**
 * What stands between an execution and the agents that come closest to it: what ends by itself goes before what stays, and then
 * what most agents have. OFFLINE: there is no agent.
 */
export function nearestObstacle(constraints: readonly Pick<WaitingConstraint, 'kind' | 'permanent'>[]): Kind {
  const passing = constraints.filter(({ permanent }) => !permanent);
  const counts = new Map<Kind, number>();
  for (const { kind } of passing.length > 0 ? passing : constraints) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].toSorted(([, a], [, b]) => b - a)[0]?.[0] ?? Kind.OFFLINE;
}
