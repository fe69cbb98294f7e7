import { formatRequirement, type LabelSelector, matchesRequirement } from '@harrier/shared';
import type { Candidate } from '../agent-link/candidate.ts';

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

/** The least loaded agent that can take an execution now; undefined when there is none. Ties go to the first. */
export function place(requirement: Requirement, candidates: Iterable<Candidate>): Candidate | undefined {
  let best: Candidate | undefined;
  let bestLoad = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    if (candidate.active >= candidate.slots || whyNot(requirement, candidate) !== undefined) continue;
    const load = candidate.active / candidate.slots;
    if (load < bestLoad) {
      best = candidate;
      bestLoad = load;
    }
  }
  return best;
}

/** Whether an agent can take an execution, now or when it is not full any more. */
export function canBePlaced(requirement: Requirement, candidates: Iterable<Candidate>): boolean {
  for (const candidate of candidates) if (whyNot(requirement, candidate) === undefined) return true;
  return false;
}

/** Why an execution waits: the failing constraint of every agent of its tenant. */
export function explainWaiting(requirement: Requirement, candidates: Iterable<Candidate>): string {
  const own = [...candidates].filter((candidate) => candidate.tenantId === requirement.tenantId);
  if (own.length === 0) return 'no agent is linked';
  const reasons = own.map((candidate) => {
    const reason =
      whyNot(requirement, candidate) ?? (isFull(candidate) ? fullReason(candidate) : 'about to be assigned');
    return `${candidate.name}: ${reason}`;
  });
  return reasons.join('; ');
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
