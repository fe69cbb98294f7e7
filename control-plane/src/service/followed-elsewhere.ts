import { type Logger, messageOf } from '@harrier/shared';
import { replicaOfExecution } from '../db/queries/execution-place.ts';
import type { Sql } from '../db/sql.ts';
import type { BusMessage, ToldChange } from '../replica/bus-message.ts';
import type { BusTarget } from '../replica/replica-bus.ts';
import { ChangeSignal } from './change-signal.ts';
import type { ProgressReport, StateChange } from './tracked-execution.ts';

/** How often whoever waits looks into the database, for what nobody told. */
export const LOOK_MS = 1_000;
/** How often the other replica is asked again: it forgets those who do not, and may be another one by now. */
const ASK_MS = 5_000;
/** A replica tells for so long after it was asked. */
export const ASKED_FOR_MS = 3 * ASK_MS;

/** What another replica has told of an execution since somebody here has watched it. */
export class ToldExecution {
  readonly steps: StateChange[] = [];
  progress: ProgressReport | undefined;
  /** Grows when whoever told does not follow it any more: the database has more to say. */
  moves = 0;
  readonly changed = new ChangeSignal();
}

interface Watched {
  tenantId: string;
  told: ToldExecution;
  watchers: number;
  timer: NodeJS.Timeout;
}

export interface FollowedElsewhereOptions {
  sql: Sql;
  logger: Logger;
  send: (to: BusTarget, message: BusMessage) => void;
}

/**
 * Executions that are watched here and followed by another replica, which is asked to tell of them. It tells what the
 * database does not know yet; log bytes are read from there.
 */
export class FollowedElsewhere {
  readonly #options: FollowedElsewhereOptions;
  readonly #watched = new Map<string, Watched>();

  constructor(options: FollowedElsewhereOptions) {
    this.#options = options;
  }

  /** Begins to watch. Call `unwatch` once for it. */
  watch(tenantId: string, id: string): ToldExecution {
    let watched = this.#watched.get(id);
    if (watched === undefined) {
      const timer = setInterval(() => void this.#ask(tenantId, id, true), ASK_MS);
      timer.unref();
      watched = { tenantId, told: new ToldExecution(), watchers: 0, timer };
      this.#watched.set(id, watched);
      void this.#ask(tenantId, id, true);
    }
    watched.watchers++;
    return watched.told;
  }

  unwatch(id: string): void {
    const watched = this.#watched.get(id);
    if (watched === undefined || --watched.watchers > 0) return;
    clearInterval(watched.timer);
    this.#watched.delete(id);
  }

  /** Another replica told of an execution. */
  changed({ id, steps, progress, over }: ToldChange): void {
    const watched = this.#watched.get(id);
    if (watched === undefined) return;
    watched.told.steps.push(...(steps as StateChange[]));
    watched.told.progress = progress ?? watched.told.progress;
    if (over) this.#moved(id, watched);
    watched.told.changed.notify();
  }

  /** It ended, or another replica follows it now. */
  moved(ids: readonly string[]): void {
    for (const id of ids) {
      const watched = this.#watched.get(id);
      if (watched === undefined) continue;
      this.#moved(id, watched);
      watched.told.changed.notify();
    }
  }

  /** Something may have been missed: everybody looks, and asks anew. */
  lookAgain(): void {
    this.moved([...this.#watched.keys()]);
  }

  #moved(id: string, { told, tenantId }: Watched): void {
    told.moves++;
    // Without an answer: one that follows it no more would give this one again, and so on.
    void this.#ask(tenantId, id, false);
  }

  async #ask(tenantId: string, id: string, tell: boolean): Promise<void> {
    try {
      const replica = await replicaOfExecution(this.#options.sql, tenantId, id);
      if (replica === undefined || !this.#watched.has(id)) return;
      // While it waits, any replica may be the next to have it.
      this.#options.send(replica ?? 'all', { type: 'watch', id, tell: tell && replica !== null });
    } catch (error) {
      this.#options.logger.debug({ executionId: id, reason: messageOf(error) }, 'another replica could not be asked');
    }
  }
}
