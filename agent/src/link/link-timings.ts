import type { BackoffOptions } from '@harrier/shared';

/** Deadlines of the link, in milliseconds. */
export interface LinkTimings {
  /** From the first packet to `welcome`. */
  handshakeMs: number;
  pingIntervalMs: number;
  /** A link on which nothing came for so long is dead; more than two pings. */
  silenceMs: number;
  /** A link that lasted so long was good: the next failure counts as the first. */
  stableMs: number;
  /** How long the other side may take to answer a close. */
  closeMs: number;
  /** Spread of the agents that turn to a replica after another one has stopped. */
  switchJitterMs: number;
  backoff: BackoffOptions;
}

export const LINK_TIMINGS: LinkTimings = {
  handshakeMs: 10_000,
  pingIntervalMs: 10_000,
  silenceMs: 25_000,
  stableMs: 30_000,
  closeMs: 2_000,
  switchJitterMs: 250,
  backoff: { initialMs: 250, maxMs: 30_000, multiplier: 2 },
};
