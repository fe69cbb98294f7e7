/**
 * An agent tells of all attempts that it holds in one frame of the link, its hello, and hears of them in one header of its
 * launcher. Both have 1 MiB: an attempt takes up to 60 bytes in the one and 150 in the other.
 */
export const MAX_HELD_ATTEMPTS = 6_144;

/** Executions at once. What has ended waits beside them until it is stored, half as many at most. */
export const MAX_AGENT_SLOTS = 4_096;
