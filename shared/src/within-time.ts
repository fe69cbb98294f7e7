import { Script } from 'node:vm';

/** V8 can be told to give up a script, and with it everything that the script has called. */
const CALL = new Script('globalThis[Symbol.for("harrier.withinTime")]()', { filename: 'within-time.vm' });
const SLOT = Symbol.for('harrier.withinTime');
/** On a host that is overloaded the thread may have stood still for the whole time, and for some time after that. */
const MAX_TRIES = 5;
/** Work that had less of the processor than this part of its time has not had its time. */
const OWN_RATIO = 0.5;

/** The work took longer than it may. */
export class OutOfTimeError extends Error {}

/** What this thread has had of the processor. */
export function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/**
 * Runs synchronous work that somebody else has thought up, for a limited time: the event loop is held up no longer. Costs
 * some 0.2 ms. It is begun again, a few times, when the processor was given to others meanwhile, so it must be repeatable;
 * what it has changed before it is given up stays changed.
 * @throws OutOfTimeError; whatever the work throws
 */
export function withinTime<Result>(timeoutMs: number, work: () => Result): Result {
  for (let tries = 1; ; tries++) {
    const startMs = threadCpuMs();
    try {
      return withinOneTime(timeoutMs, work);
    } catch (error) {
      const hadItsTime = threadCpuMs() - startMs >= timeoutMs * OWN_RATIO;
      if (!(error instanceof OutOfTimeError) || hadItsTime || tries === MAX_TRIES) throw error;
    }
  }
}

function withinOneTime<Result>(timeoutMs: number, work: () => Result): Result {
  const slots = globalThis as unknown as Record<symbol, (() => Result) | undefined>;
  slots[SLOT] = work;
  try {
    return CALL.runInThisContext({ timeout: timeoutMs }) as Result;
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
    throw new OutOfTimeError(`it takes longer than ${timeoutMs} ms`, { cause });
  } finally {
    slots[SLOT] = undefined;
  }
}
