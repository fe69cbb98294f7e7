import { OutOfTimeError, threadCpuMs, withinTime } from '@harrier/shared';
import { ExpressionError } from './expression-value.ts';

/** Expressions are for decisions and small values; what takes longer belongs into a node that runs code. */
const MAX_MS = 250;
/** Of JSON that they make: twice what a run keeps of a value. One large value may be named many times at little cost in time. */
const MAX_MADE_CHARS = 16 * 1024 * 1024;

/** Says of what is evaluated why it has no value. */
export type Failed = (reason: string, cause?: unknown) => ExpressionError;

/**
 * What all expressions of a node may take together: time of the processor (that others take it from the control plane is not
 * their fault), and room.
 */
export class Budget {
  #leftMs = MAX_MS;
  #leftChars = MAX_MADE_CHARS;
  #spending = false;
  #failed: Failed = (reason, cause) => new ExpressionError(reason, { cause });

  /**
   * Does repeatable work within what is left. Work within such work shares its time, and costs nothing more.
   * @param failed of the expression that is evaluated from now on. @throws ExpressionError when nothing is left; what the work throws
   */
  spend<Result>(work: () => Result, failed = this.#failed): Result {
    this.#failed = failed;
    if (this.#spending) return work();
    if (this.#leftMs <= 0) throw this.#outOfTime();
    const startMs = threadCpuMs();
    const leftChars = this.#leftChars;
    this.#spending = true;
    try {
      return withinTime(Math.max(1, Math.round(this.#leftMs)), () => {
        this.#leftChars = leftChars;
        return work();
      });
    } catch (cause) {
      if (!(cause instanceof OutOfTimeError)) throw cause;
      // On a busy host it had less of the processor; it had its chance all the same.
      this.#leftMs = 0;
      throw this.#outOfTime(cause);
    } finally {
      this.#spending = false;
      this.#leftMs -= threadCpuMs() - startMs;
    }
  }

  /** So many characters of JSON were made. @throws ExpressionError when they are too many */
  count(chars: number): void {
    this.#leftChars -= chars;
    if (this.#leftChars >= 0) return;
    throw new ExpressionError(
      `the expressions of its node make more than ${MAX_MADE_CHARS} characters of JSON together`,
    );
  }

  #outOfTime(cause?: unknown): ExpressionError {
    return this.#failed(`the expressions of its node take longer than ${MAX_MS} ms together`, cause);
  }
}
