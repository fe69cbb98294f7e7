import { availableParallelism, totalmem } from 'node:os';
import type { FinishedMessage } from '../launcher/messages.ts';
import type { PrivateCommand, PrivateRuns } from '../launcher/private-runs.ts';
import type { TaskEvents } from '../tasks/shared-tasks.ts';
import { untilAborted } from '../tasks/until-aborted.ts';

/** Compilers need room; the largest packages of wheels take a tenth of it while they are imported. */
const MAX_MEMORY_BYTES = 8 * 1024 ** 3;
/** They share a disk and a network, whatever the host has of processors. */
const MAX_AT_ONCE = 4;

/** What the code of packages may use of a host before any call runs. */
export interface BuildBounds {
  /** Of a step of a build, and of an interpreter while it imports packages. */
  memoryBytes: number;
  /** Processors of a step of a build. */
  cpu: number;
  /** Steps of builds that run at once. */
  atOnce: number;
}

/**
 * At most half of the host, and never more memory than a call may have.
 * @param maxMemoryBytes the operator's limit for a call
 */
export function buildBounds(
  maxMemoryBytes: number,
  host = { memoryBytes: totalmem(), cores: availableParallelism() },
): BuildBounds {
  return {
    memoryBytes: Math.min(MAX_MEMORY_BYTES, Math.floor(host.memoryBytes / 2), maxMemoryBytes),
    cpu: Math.max(1, host.cores / 2),
    atOnce: Math.min(MAX_AT_ONCE, host.cores),
  };
}

/** Runs the steps of builds, so many at once; the others wait in the order in which they came. */
export class BuildRuns {
  readonly bounds: BuildBounds;
  readonly #runs: PrivateRuns;
  readonly #waiting: PromiseWithResolvers<void>[] = [];
  #running = 0;

  constructor(runs: PrivateRuns, bounds: BuildBounds) {
    this.#runs = runs;
    this.bounds = bounds;
  }

  /** Steps that run, and that wait for their turn. */
  get counts(): { running: number; waiting: number } {
    return { running: this.#running, waiting: this.#waiting.length };
  }

  /** As `PrivateRuns.startAhead`. */
  startAhead(...sandbox: Parameters<PrivateRuns['startAhead']>): () => void {
    return this.#runs.startAhead(...sandbox);
  }

  /** As `PrivateRuns.run`; whoever has to wait for it is told. */
  async run(command: PrivateCommand, events: TaskEvents, signal: AbortSignal): Promise<FinishedMessage> {
    await this.#turn(events, signal);
    try {
      return await this.#runs.run(command, signal);
    } finally {
      this.#leave();
    }
  }

  async #turn(events: TaskEvents, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#running < this.bounds.atOnce) {
      this.#running++;
      return;
    }
    const turn = Promise.withResolvers<void>();
    this.#waiting.push(turn);
    const told = `harrier: as many builds run on this agent as may at once (${this.bounds.atOnce}); this is number ${this.#waiting.length} in the queue\n`;
    events.onOutput(Buffer.from(told));
    try {
      await untilAborted(turn.promise, signal);
    } catch (error) {
      const place = this.#waiting.indexOf(turn);
      if (place >= 0) this.#waiting.splice(place, 1);
      else this.#leave(); // its turn has come in the same moment
      throw error;
    }
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running--;
    else next.resolve();
  }
}
