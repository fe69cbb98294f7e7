import { type Logger, messageOf } from '@harrier/shared';
import { engineMessage } from '../docker/engine.ts';
import { bootNowMs } from '../lease/boot-clock.ts';
import type { Ending } from './container-outcome.ts';
import type { DockerAttempt } from './docker-attempt.ts';
import { logFacts } from './log-facts.ts';

/** Between asking a container to stop and killing it, when its timeout is reached. */
const TIMEOUT_GRACE_MS = 2_000;

/** Ends containers: when told to, and at their timeout. */
export class ContainerStops {
  readonly #logger: Logger;
  readonly #nowMs: () => number;

  /** @param nowMs the clock of `startTimeout`, which nobody sets */
  constructor(logger: Logger, nowMs: () => number = bootNowMs) {
    this.#logger = logger;
    this.#nowMs = nowMs;
  }

  /** Asks the container to end, and kills it after the grace; before it runs, it does not start. */
  stop(attempt: DockerAttempt, ending: Ending, graceMs: number): void {
    if (attempt.ended) return;
    keepOrTell(attempt, this.#logger, () => {
      attempt.ending = ending;
    });
    if (!attempt.started) {
      attempt.abort.abort(new Error(ending));
      return;
    }
    clearTimeout(attempt.timer);
    if (graceMs === 0) {
      void this.kill(attempt, 'SIGKILL');
      return;
    }
    attempt.timer = setTimeout(() => void this.kill(attempt, 'SIGKILL'), graceMs);
    void this.kill(attempt, 'SIGTERM');
  }

  async kill(attempt: DockerAttempt, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    try {
      await attempt.run.signal(signal);
    } catch (error) {
      // The container is killed when it is followed again.
      this.#logger.warn(
        { ...logFacts(attempt.facts), container: attempt.run.name, signal, reason: engineMessage(error) },
        'no signal sent',
      );
    }
  }

  /** Its container has been started: a later agent must know since when it runs. */
  noteStart(attempt: DockerAttempt): void {
    keepOrTell(attempt, this.#logger, () => attempt.noteStart(this.#nowMs()));
  }

  /**
   * Its time counts from its start, also for an agent that was started again.
   * @param engineStartMs what the engine says of its start, by the clock of the calendar, for one of which an agent has noted none
   */
  startTimeout(attempt: DockerAttempt, engineStartMs: number): void {
    const { timeoutMs } = attempt.facts;
    if (timeoutMs === 0 || attempt.ending !== undefined) return;
    clearTimeout(attempt.timer);
    const { startMs } = attempt;
    const ranMs = startMs === undefined ? Date.now() - engineStartMs : this.#nowMs() - startMs;
    const leftMs = Math.max(0, timeoutMs - ranMs);
    attempt.timer = setTimeout(() => this.stop(attempt, 'timeout', TIMEOUT_GRACE_MS), leftMs);
  }
}

/** What a full disk does not take is true all the same, but a later agent will not know it. */
export function keepOrTell({ run, facts }: DockerAttempt, logger: Logger, write: () => void): void {
  try {
    write();
  } catch (error) {
    const reason = messageOf(error);
    logger.error({ ...logFacts(facts), container: run.name, reason }, 'a fact is only in memory');
  }
}
