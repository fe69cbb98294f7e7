import { formatRequirement, type LabelSelector, matchesRequirement } from '@harrier/shared';
import type { Candidate } from '../agent-link/candidate.ts';

/** Agents, or reasons, that a sentence names at most. */
const MAX_NAMED = 20;

/** What an execution asks of an agent. */
export interface Requirement {
  tenantId: string;
  /** Kind of environment, for example `inline`. */
  environment: string;
  /** All of them must match. */
  selectors: readonly LabelSelector[];
  /** Agents that said a moment ago that they have no room for it, by id, with their words. Absent: none. */
  refusals?: ReadonlyMap<string, string>;
}

/** Whether an agent can take an execution, now or when it is not full any more. */
export function canBePlaced(requirement: Requirement, candidates: Iterable<Candidate>): boolean {
  for (const candidate of candidates) if (whyNot(requirement, candidate) === undefined) return true;
  return false;
}

/**
 * Why an execution waits: the failing constraint of every agent of its tenant; of a fleet, how many have each constraint, those of
 * most agents first.
 */
export function explainWaiting(requirement: Requirement, candidates: Iterable<Candidate>): string {
  const reasons: { name: string; reason: string }[] = [];
  for (const candidate of candidates) {
    if (candidate.tenantId !== requirement.tenantId) continue;
    const reason =
      whyNot(requirement, candidate) ?? (isFull(candidate) ? fullReason(candidate) : 'about to be assigned');
    reasons.push({ name: candidate.name, reason });
  }
  if (reasons.length === 0) return 'no agent is linked';
  if (reasons.length > MAX_NAMED) return explainFleet(reasons);
  return reasons.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
}

function explainFleet(reasons: readonly { name: string; reason: string }[]): string {
  const byReason = new Map<string, { count: number; name: string }>();
  for (const { name, reason } of reasons) {
    const known = byReason.get(reason);
    if (known === undefined) byReason.set(reason, { count: 1, name });
    else known.count++;
  }
  const most = [...byReason].toSorted(([, a], [, b]) => b.count - a.count).slice(0, MAX_NAMED);
  const told = most.reduce((sum, [, { count }]) => sum + count, 0);
  const lines = most.map(([reason, { count, name }]) => {
    return count === 1 ? `${name}: ${reason}` : `${count} agents (${name} for one): ${reason}`;
  });
  if (told < reasons.length) lines.push(`and ${reasons.length - told} more agents`);
  return lines.join('; ');
}

function whyNot(requirement: Requirement, candidate: Candidate): string | undefined {
  if (candidate.tenantId !== requirement.tenantId) return 'belongs to another tenant';
  if (candidate.draining) return 'draining';
  const lack = lackOf(requirement.environment, candidate);
  if (lack !== undefined) return lack;
  const label = mismatch(requirement.selectors, candidate);
  if (label !== undefined) return `labels do not match "${formatRequirement(label)}"`;
  return requirement.refusals?.get(candidate.id);
}

/** Whether the agent's labels match all of the selectors. */
export function selects(selectors: readonly LabelSelector[], agent: Pick<Candidate, 'labels'>): boolean {
  return mismatch(selectors, agent) === undefined;
}

function mismatch(selectors: readonly LabelSelector[], { labels }: Pick<Candidate, 'labels'>) {
  for (const selector of selectors) {
    for (const requirement of selector) if (!matchesRequirement(requirement, labels)) return requirement;
  }
  return undefined;
}

/** Why an agent cannot prepare an environment, linked or not; undefined when it can. */
export function lackOf(
  environment: string,
  agent: Pick<Candidate, 'environments' | 'unavailableEnvironments'>,
): string | undefined {
  if (agent.environments.has(environment)) return undefined;
  const reason = agent.unavailableEnvironments[environment];
  return reason === undefined ? `has no environment "${environment}"` : `no environment "${environment}": ${reason}`;
}

function isFull(candidate: Candidate): boolean {
  return candidate.active >= candidate.slots;
}

function fullReason(candidate: Candidate): string {
  return `all ${candidate.slots} slots are in use`;
}
