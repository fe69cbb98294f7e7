/** What one call may ask for. */
export interface ApiLimits {
  /** Largest message, decompressed; the largest body of a REST request. */
  maxRequestBytes: number;
  /** Bodies of requests that are in memory at once, over all calls. */
  maxBodiesBytes: number;
  /** Longest deadline that a caller may give. */
  maxTimeoutMs: number;
}

export const DEFAULT_API_LIMITS: ApiLimits = {
  maxRequestBytes: 8 * 1024 * 1024,
  maxBodiesBytes: 256 * 1024 * 1024,
  maxTimeoutMs: 24 * 60 * 60 * 1000,
};
