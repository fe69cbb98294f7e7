import type { Systemd } from '@harrier/shared';

/** What tells whether the agent still does what it is there for. */
export interface AgentPulse {
  /** Whether the link is up, and since when it is or is not. By the same clock as `nowMs`. */
  linked: boolean;
  sinceMs: number;
  /** When a heartbeat was acknowledged last; undefined: none on this link. */
  acknowledgedMs: number | undefined;
  /** When a control plane was dialled last. */
  dialledMs: number;
  /** For so long an acknowledgement renews what this agent owns; 0: the control plane acknowledges nothing. */
  leaseMs: number;
}

/** Above the lease: two beats, so that the link has had its chance to end first. */
const LEASE_MARGIN_MS = 20_000;
/** Well above the longest wait between two tries and the time that one may take. */
const MAX_BETWEEN_DIALS_MS = 120_000;

/**
 * Why this agent is to be restarted: it believes that it is linked although nothing acknowledges its heartbeats, or it has stopped to
 * seek a control plane. One that finds none is well: a restart would not help it, and what runs goes on without it either way.
 */
export function reasonToRestart(pulse: AgentPulse, nowMs: number): string | undefined {
  if (!pulse.linked) {
    const ageMs = nowMs - Math.max(pulse.dialledMs, pulse.sinceMs);
    return ageMs > MAX_BETWEEN_DIALS_MS ? `no control plane was dialled for ${seconds(ageMs)}` : undefined;
  }
  const ageMs = nowMs - (pulse.acknowledgedMs ?? pulse.sinceMs);
  if (pulse.leaseMs === 0 || ageMs <= pulse.leaseMs + LEASE_MARGIN_MS) return undefined;
  return `the link is up, but no heartbeat was acknowledged for ${seconds(ageMs)}`;
}

/** Keeps the pulse, and tells systemd of it. */
export class AgentWatchdog {
  readonly #systemd: Systemd;
  readonly #nowMs: () => number;
  readonly #pulse: AgentPulse;

  /** @param nowMs a clock that stands still while the host sleeps, as that of systemd's watchdog does */
  constructor(systemd: Systemd, nowMs: () => number = () => performance.now()) {
    this.#systemd = systemd;
    this.#nowMs = nowMs;
    const sinceMs = nowMs();
    this.#pulse = { linked: false, sinceMs, acknowledgedMs: undefined, dialledMs: sinceMs, leaseMs: 0 };
  }

  /** The agent works from now on. */
  start(): void {
    this.#systemd.ready(NOT_LINKED);
    this.#systemd.watch(() => reasonToRestart(this.#pulse, this.#nowMs()));
  }

  dialled(): void {
    this.#pulse.dialledMs = this.#nowMs();
  }

  /** @param leaseMs 0: the control plane acknowledges no heartbeats */
  linkUp(agentId: string, leaseMs: number): void {
    Object.assign(this.#pulse, { linked: true, sinceMs: this.#nowMs(), acknowledgedMs: undefined, leaseMs });
    this.#systemd.status(`Linked to the control plane as agent ${agentId}`);
  }

  linkDown(): void {
    Object.assign(this.#pulse, { linked: false, sinceMs: this.#nowMs() });
    this.#systemd.status(NOT_LINKED);
  }

  acknowledged(): void {
    this.#pulse.acknowledgedMs = this.#nowMs();
  }

  /** The agent was asked to stop, and takes its time. */
  stopping(): void {
    this.#systemd.stopping();
  }

  /** Says nothing more by itself. */
  close(): void {
    this.#systemd.close();
  }
}

/** The installer waits for another one. */
const NOT_LINKED = 'Not linked to a control plane; trying';

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
