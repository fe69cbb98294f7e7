import type { Logger } from '@harrier/shared';
import type { ContainerBudget } from '../docker/container-budget.ts';
import { LABEL, listContainers } from '../docker/container-list.ts';
import { ContainerRun } from '../docker/container-run.ts';
import { type DockerEngine, engineMessage } from '../docker/engine.ts';
import type { ZygoteHost } from './warm-container.ts';

export interface FormerContainersOptions {
  engine: DockerEngine;
  budget: ContainerBudget;
  host: ZygoteHost;
  /** Directory of the agent. */
  dataDir: string;
  logger: Logger;
}

/** Warm containers that a former agent has left. */
export class FormerContainers {
  readonly #options: FormerContainersOptions;
  readonly #isOwn: (key: string) => boolean;
  /** Names of those that are waited for, or that somebody is removing. */
  readonly #ending = new Set<string>();
  #closed = false;

  /** @param isOwn whether a container is this agent's, by its key */
  constructor(options: FormerContainersOptions, isOwn: (key: string) => boolean) {
    this.#options = options;
    this.#isOwn = isOwn;
  }

  /** Somebody removes it. */
  ignore(name: string): void {
    this.#ending.add(name);
  }

  heed(name: string): void {
    this.#ending.delete(name);
  }

  /** Leaves the rest to a later agent. */
  close(): void {
    this.#closed = true;
  }

  /**
   * Those that are there may still run calls, so that they are retired, keep their place, and are removed when they have
   * ended; what has ended is removed at once.
   */
  async outlast(): Promise<void> {
    const { engine, dataDir, host, logger } = this.#options;
    try {
      for (const { name, labels } of await listContainers(engine, { [LABEL.agent]: dataDir, [LABEL.role]: 'pool' })) {
        const key = labels[LABEL.key] ?? '';
        const tenant = labels[LABEL.tenant] ?? '';
        if (this.#closed || this.#isOwn(key)) continue;
        // Also one that is being waited for already: the launcher may have it only now.
        host.retire(tenant, key);
        if (!this.#ending.has(name)) void this.#remove(new ContainerRun(engine, name));
      }
    } catch (error) {
      logger.warn({ reason: engineMessage(error) }, 'containers not looked through');
    }
  }

  /** Removes one when it has ended. */
  async #remove(run: ContainerRun): Promise<void> {
    this.#ending.add(run.name);
    const release = this.#options.budget.adopt();
    try {
      await run.exit();
      await run.remove();
    } catch (error) {
      // It is looked for again when the engine is back, or by a later agent.
      const reason = engineMessage(error);
      if (!this.#closed) this.#options.logger.warn({ container: run.name, reason }, 'container not removed');
    } finally {
      this.#ending.delete(run.name);
      release();
    }
  }
}
