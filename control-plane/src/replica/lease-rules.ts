/**
 * When leases end, as pure rules. An agent counts from the moment at which it sent what was renewed, the control plane from
 * the moment at which it sent the renewal, which is later, and a margin on top: the agent's end always comes first.
 * All times are milliseconds of one clock, which is not that of the day.
 */

/** How far the control plane's end of a lease lies behind the agent's: what a stop may take. */
const MARGIN_MS = 1_000;
/** For so long after it wrote its row a replica may renew leases. Others believe it to live for as long. */
export const REPLICA_VALID_MS = 10_000;
const MAX_HEARTBEAT_MS = 10_000;
/** Fewer agents than these may well be gone for reasons of their own. */
const MIN_BRAKED_AGENTS = 3;

/** How often an agent is to send heartbeats: a renewal may be lost without harm. */
export function heartbeatIntervalMs(leaseMs: number): number {
  return Math.min(MAX_HEARTBEAT_MS, Math.floor(leaseMs / 3));
}

/** When the control plane may take a lease for ended that it renewed last at `renewedMs`. */
export function leaseEndMs(renewedMs: number, leaseMs: number): number {
  return renewedMs + leaseMs + MARGIN_MS;
}

/**
 * Whether a replica may renew leases.
 * @param beatMs when it sent the newest statement that wrote its row; undefined: none has been confirmed yet
 */
export function mayRenew(beatMs: number | undefined, nowMs: number): boolean {
  return beatMs !== undefined && nowMs - beatMs < REPLICA_VALID_MS;
}

/** How long after its row was last written the leases that a dead replica has renewed have surely ended. */
export function orphanedLeaseMs(leaseMs: number): number {
  return leaseEndMs(REPLICA_VALID_MS, leaseMs);
}

/** Whether an attempt is lost: its agent's lease has ended, and the time for which its module lets it run on. */
export function isAttemptLost(agentLeaseEndMs: number, maxDisconnectMs: number, nowMs: number): boolean {
  return nowMs >= agentLeaseEndMs + maxDisconnectMs;
}

export interface AgentLease {
  id: string;
  /** Undefined while it is linked. */
  leaseEndMs: number | undefined;
}

export interface BrakeSettings {
  leaseMs: number;
  brakeMs: number;
}

/**
 * The brake of a tenant: when more than half of its agents that were there a moment ago, and at least three, have their leases ending
 * together, it is rather the network than the agents, and running their work elsewhere would help nobody.
 * @returns whose attempts are not to be given to others yet, and until when at most; nothing when the brake is not on.
 */
export function brake(
  agents: readonly AgentLease[],
  nowMs: number,
  { leaseMs, brakeMs }: BrakeSettings,
): { held: ReadonlySet<string>; untilMs: number } | undefined {
  const linked = agents.filter((agent) => agent.leaseEndMs === undefined).length;
  const gone = agents
    .flatMap(({ id, leaseEndMs: endMs }) => (endMs === undefined ? [] : [{ id, endMs }]))
    .filter(({ endMs }) => endMs > nowMs - brakeMs)
    .toSorted((a, b) => a.endMs - b.endMs);
  const windowMs = brakeWindowMs(leaseMs);
  let most: { id: string; endMs: number }[] = [];
  for (let first = 0, end = 0; first < gone.length; first++) {
    const startMs = gone[first]?.endMs ?? 0;
    while (end < gone.length && (gone[end]?.endMs ?? 0) <= startMs + windowMs) end++;
    if (end - first > most.length) most = gone.slice(first, end);
  }
  const [earliest] = most;
  if (earliest === undefined || most.length < MIN_BRAKED_AGENTS || most.length * 2 <= linked + gone.length) {
    return undefined;
  }
  return { held: new Set(most.map(({ id }) => id)), untilMs: earliest.endMs + brakeMs };
}

/**
 * The brakes of all tenants: agents of one tenant that go keep the work of no other tenant.
 * @returns whose attempts are not to be given to others yet, and until when at most
 */
export function brakes(
  agents: readonly (AgentLease & { tenantId: string })[],
  nowMs: number,
  settings: BrakeSettings,
): Map<string, number> {
  const held = new Map<string, number>();
  for (const own of Map.groupBy(agents, ({ tenantId }) => tenantId).values()) {
    const on = brake(own, nowMs, settings);
    for (const id of on?.held ?? []) held.set(id, on?.untilMs ?? nowMs);
  }
  return held;
}

/** Leases that one failure ends: those renewed last within a lease, and those of replicas that went down with them. */
export function brakeWindowMs(leaseMs: number): number {
  return orphanedLeaseMs(leaseMs);
}
