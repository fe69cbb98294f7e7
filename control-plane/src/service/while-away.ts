import { HarrierError } from '@harrier/shared';
import { isDatabaseAway, isDatabaseFull } from '../db/database-away.ts';

/** A restart of the database, or a standby that takes over, takes less. */
const PATIENCE_MS = 15_000;
const AGAIN_MS = 200;

/** The error that a caller sees when the database cannot be reached. */
export function databaseAway(cause: unknown): HarrierError {
  return new HarrierError('unavailable', 'the database cannot be reached now; try again', { cause });
}

/** Does something that may be done twice until the database is there, for a while. @throws HarrierError unavailable */
export async function untilDatabaseAnswers<Result>(ask: () => Promise<Result>, signal?: AbortSignal): Promise<Result> {
  const endMs = performance.now() + PATIENCE_MS;
  while (true) {
    try {
      return await ask();
    } catch (error) {
      if (!isDatabaseAway(error)) throw error;
      if (performance.now() > endMs) throw databaseAway(error);
      signal?.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

/** What a caller is told of anything that was thrown: that the database is away or full is no defect. */
export function withoutDatabaseErrors(thrown: unknown): unknown {
  if (isDatabaseFull(thrown)) {
    const message = 'the database has no room for more now; try again when its operator has made some';
    return new HarrierError('unavailable', message, { cause: thrown });
  }
  return isDatabaseAway(thrown) ? databaseAway(thrown) : thrown;
}
