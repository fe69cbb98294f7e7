import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { messageOf } from './errors.ts';
import type { Logger } from './logger.ts';

/** An editor writes a file in several steps; the last of them is what counts. */
const SETTLE_MS = 100;

export interface FileWatcherOptions {
  /** Something may have changed. Calls never overlap. */
  onChange: () => Promise<void>;
  logger: Logger;
}

/**
 * Watches files through their directories: editors and configuration managers replace a file rather than write to it, and
 * a watch on the file itself would go on looking at the old one.
 */
export class FileWatcher {
  readonly #options: FileWatcherOptions;
  readonly #directories = new Map<string, FSWatcher>();
  #names = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: FileWatcherOptions) {
    this.#options = options;
  }

  /** Watches these files and no others. A directory that is not there is logged and not watched. */
  watch(paths: readonly string[]): void {
    if (this.#closed) return;
    const wanted = new Set(paths.map((path) => dirname(path)));
    this.#names = new Set(paths.map((path) => basename(path)));
    for (const [directory, watcher] of this.#directories) {
      if (wanted.has(directory)) continue;
      watcher.close();
      this.#directories.delete(directory);
    }
    for (const directory of wanted) if (!this.#directories.has(directory)) this.#open(directory);
  }

  /** Resolves when no call of `onChange` runs any more. Safe to call twice. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const watcher of this.#directories.values()) watcher.close();
    this.#directories.clear();
    await this.#running;
  }

  #open(directory: string): void {
    try {
      const watcher = watch(directory, { persistent: false }, (_event, name) => this.#changed(name));
      watcher.on('error', (error) => {
        watcher.close();
        this.#directories.delete(directory);
        this.#options.logger.warn({ directory }, `the directory is not watched any more: ${messageOf(error)}`);
      });
      this.#directories.set(directory, watcher);
    } catch (error) {
      this.#options.logger.warn({ directory }, `the directory cannot be watched: ${messageOf(error)}`);
    }
  }

  #changed(name: string | null): void {
    // Kubernetes replaces a mounted ConfigMap by turning the link `..data`; the files themselves show no event.
    if (name !== null && !this.#names.has(name) && !name.startsWith('..')) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#running = this.#running.then(() => (this.#closed ? undefined : this.#options.onChange()));
    }, SETTLE_MS);
  }
}
