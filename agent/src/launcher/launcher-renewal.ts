import type { Logger } from '@harrier/shared';
import type { Launcher } from './launcher.ts';

export interface LauncherRenewalOptions {
  launcher: Pick<Launcher, 'build' | 'startedHere' | 'replace'>;
  /** What this agent would start. */
  build: string;
  /** Whether the launcher has nothing that would be lost or kept waiting: no attempt, no result, no build. */
  isIdle: () => boolean;
  logger: Logger;
}

/**
 * An agent that was upgraded finds the launcher of the old one, which goes on with what it runs and takes new work too. In
 * its first idle moment it is replaced.
 */
export class LauncherRenewal {
  readonly #options: LauncherRenewalOptions;
  #toldBuild: string | undefined;
  /** Of the launcher that was replaced last. */
  #replacedBuild: string | undefined;

  constructor(options: LauncherRenewalOptions) {
    this.#options = options;
  }

  /** Whether the launcher that answers is of another build than this agent's own. */
  get outdated(): boolean {
    const { launcher, build } = this.#options;
    // One that this process has started is the newest there is, even if its files have changed meanwhile.
    return launcher.build !== undefined && launcher.build !== build && !launcher.startedHere;
  }

  /** To be called when a launcher answers, and when it may have become idle. */
  notice(): void {
    if (!this.outdated) return;
    const { launcher, build, isIdle, logger } = this.#options;
    const found = { build: launcher.build, wanted: build };
    if (launcher.build === this.#replacedBuild) {
      // A service manager has started it again: it may have other settings than this agent, and would go on to.
      if (this.#toldBuild !== launcher.build)
        logger.error(found, 'the launcher that was to be replaced came again; are its settings those of the agent?');
      this.#toldBuild = launcher.build;
    } else if (isIdle()) {
      logger.info(found, 'replacing the launcher of another build');
      this.#replacedBuild = launcher.build;
      this.#toldBuild = undefined;
      launcher.replace();
    } else if (this.#toldBuild !== launcher.build) {
      this.#toldBuild = launcher.build;
      logger.info(found, 'the launcher is of another build; it is replaced when it has nothing to do');
    }
  }
}
