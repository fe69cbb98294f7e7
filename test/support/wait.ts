/** Long enough for a busy machine with two cores; reached only by what hangs. */
export const DEADLINE_MS = 120_000;
const POLL_MS = 25;

/**
 * Waits until `look` answers something else than undefined, null or false, and answers that.
 * @param what completes "waited … for": shown when the deadline passes, with what was seen last
 */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | null | false> | T | undefined | null | false,
  options: { deadlineMs?: number; seen?: () => unknown } = {},
): Promise<T> {
  const deadlineMs = options.deadlineMs ?? DEADLINE_MS;
  const end = performance.now() + deadlineMs;
  while (true) {
    const value = await look();
    if (value !== undefined && value !== null && value !== false) return value;
    if (performance.now() > end) {
      const seen = options.seen === undefined ? '' : `; last seen: ${JSON.stringify(options.seen())}`;
      throw new Error(`waited ${deadlineMs} ms for ${what}${seen}`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** The promise, or an error that says what did not come in time. */
export async function within<T>(what: string, promise: Promise<T>, deadlineMs = DEADLINE_MS): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`waited ${deadlineMs} ms for ${what}`)), deadlineMs);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
