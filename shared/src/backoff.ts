export interface BackoffOptions {
  initialMs: number;
  maxMs: number;
  multiplier: number;
}

/**
 * Wait before try `failures + 1` with full jitter: uniform in [0, min(max, initial × multiplier^failures)].
 * Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
export function fullJitterMs(failures: number, options: BackoffOptions, random: () => number = Math.random): number {
  return random() * cappedExponentialMs(failures, options);
}

/** min(max, initial × multiplier^failures), in milliseconds. */
export function cappedExponentialMs(failures: number, options: BackoffOptions): number {
  return Math.min(options.maxMs, options.initialMs * options.multiplier ** failures);
}
