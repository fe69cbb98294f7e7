import { type ContainerUsage, readContainerGroups } from './container-groups.ts';
import type { ContainerRun } from './container-run.ts';

/**
 * Groups are removed some tens of milliseconds after the last process, and nobody tells of them afterwards. A look takes
 * three small files; looking less often at what runs for long keeps the error relatively small, and the cost.
 */
const SHORTEST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 100;
const PAUSE_RATIO = 0.02;
/** Asking the engine costs it milliseconds of work. */
const ENGINE_PAUSE_MS = 1_000;
/** Keeping it writes a file. */
const KEEP_PAUSE_MS = 1_000;

/** Knows what a container has used, up to about its end. */
export class ContainerMeter {
  readonly #run: ContainerRun;
  readonly #keep: (usage: ContainerUsage) => void;
  #usage: ContainerUsage;
  #keptAtMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #running = false;

  /**
   * @param before what was kept of the container by a former agent
   * @param keep called with what is seen first, and then at most once a second: the container may end while no agent is
   *   there, and nobody tells what it has used afterwards
   */
  constructor(run: ContainerRun, before: ContainerUsage, keep: (usage: ContainerUsage) => void) {
    this.#run = run;
    this.#usage = before;
    this.#keep = keep;
  }

  get usage(): ContainerUsage {
    return this.#usage;
  }

  /** The container runs. Safe to call twice. */
  begin(): void {
    if (this.#running) return;
    this.#running = true;
    // At once: one that ran before this agent came may end in the next moment.
    void this.#look(performance.now());
  }

  /** Safe to call twice. */
  end(): void {
    this.#running = false;
    clearTimeout(this.#timer);
  }

  #next(sinceMs: number, pauseMs: number): void {
    if (this.#running) this.#timer = setTimeout(() => void this.#look(sinceMs), pauseMs).unref();
  }

  async #look(sinceMs: number): Promise<void> {
    const { id } = this.#run;
    const groups = id === undefined ? undefined : readContainerGroups(id);
    if (groups !== undefined) {
      this.#note(groups);
      this.#keepAtTimes();
      const pauseMs = (performance.now() - sinceMs) * PAUSE_RATIO;
      this.#next(sinceMs, Math.min(LONGEST_PAUSE_MS, Math.max(SHORTEST_PAUSE_MS, pauseMs)));
      return;
    }
    // Where this host does not show them, the engine tells; of a container that has ended, nothing.
    const told = await this.#run.usage().catch(() => undefined);
    if (told !== undefined) {
      this.#note(told);
      this.#keepAtTimes();
    }
    this.#next(sinceMs, ENGINE_PAUSE_MS);
  }

  #keepAtTimes(): void {
    const nowMs = performance.now();
    if (!this.#running || nowMs - this.#keptAtMs < KEEP_PAUSE_MS) return;
    this.#keptAtMs = nowMs;
    this.#keep(this.#usage);
  }

  #note(seen: ContainerUsage): void {
    const { cpuMs, maxMemoryBytes, oomKills } = this.#usage;
    this.#usage = {
      cpuMs: Math.max(cpuMs, seen.cpuMs),
      maxMemoryBytes: Math.max(maxMemoryBytes, seen.maxMemoryBytes),
      oomKills: Math.max(oomKills, seen.oomKills),
    };
  }
}
