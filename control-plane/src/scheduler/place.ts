import { WaitingConstraint_Kind as Kind } from '@harrier/shared/gen/execution';
import type { Candidate } from '../agent-link/candidate.ts';
import { type Constraint, constraintOf, lastingConstraintOf } from './constraint.ts';
import type { Requirement } from './requirement.ts';

/** Agents, or reasons, that a sentence names at most. */
const MAX_NAMED = 20;

/** What keeps an execution from an agent, or, without one, from all of them. */
export interface WaitingConstraint extends Constraint {
  agentId: string;
  agentName: string;
}

/** Whether an agent can take an execution, now or when it is not full any more. */
export function canBePlaced(requirement: Requirement, candidates: Iterable<Candidate>): boolean {
  for (const candidate of candidates) if (lastingConstraintOf(requirement, candidate) === undefined) return true;
  return false;
}

/** What keeps an execution from each agent of its tenant. */
export function waitingConstraints(requirement: Requirement, candidates: Iterable<Candidate>): WaitingConstraint[] {
  const found: WaitingConstraint[] = [];
  for (const candidate of candidates) {
    if (candidate.tenantId !== requirement.tenantId) continue;
    const constraint = constraintOf(requirement, candidate) ?? NOTHING;
    found.push({ ...constraint, agentId: candidate.id, agentName: candidate.name });
  }
  return found;
}

const NOTHING: Constraint = { kind: Kind.NONE, message: 'about to be assigned', permanent: false };

/**
 * Why an execution waits: the failing constraint of every agent of its tenant; of a fleet, how many have each constraint, those of
 * most agents first.
 */
export function explainWaiting(constraints: readonly WaitingConstraint[]): string {
  if (constraints.length === 0) return 'no agent is linked';
  if (constraints.length > MAX_NAMED) return explainFleet(constraints);
  return constraints.map(sentence).join('; ');
}

function sentence({ agentName, message }: WaitingConstraint): string {
  return agentName === '' ? message : `${agentName}: ${message}`;
}

function explainFleet(constraints: readonly WaitingConstraint[]): string {
  const byReason = new Map<string, { count: number; first: WaitingConstraint }>();
  for (const constraint of constraints) {
    const known = byReason.get(constraint.message);
    if (known === undefined) byReason.set(constraint.message, { count: 1, first: constraint });
    else known.count++;
  }
  const most = [...byReason].toSorted(([, a], [, b]) => b.count - a.count).slice(0, MAX_NAMED);
  const told = most.reduce((sum, [, { count }]) => sum + count, 0);
  const lines = most.map(([reason, { count, first }]) => {
    return count === 1 ? sentence(first) : `${count} agents (${first.agentName} for one): ${reason}`;
  });
  if (told < constraints.length) lines.push(`and ${constraints.length - told} more agents`);
  return lines.join('; ');
}
