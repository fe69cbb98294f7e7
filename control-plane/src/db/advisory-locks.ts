/**
 * Keys of the session and transaction locks that replicas take turns by: any numbers that no other user of the database takes,
 * from "harrier" on a telephone's keys. In one place, so that no two jobs share one.
 */
export const ADVISORY_LOCKS = {
  migration: 4_277_437,
  leaseSweep: 4_277_438,
  retention: 4_277_439,
  queueCompaction: 4_277_440,
  /** With the hash of what is limited. */
  concurrency: 4_277_441,
  /** With the hash of the tenant. */
  schedules: 4_277_442,
} as const;
