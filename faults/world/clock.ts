import { globSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { directory } from '../../test/support/workspace.ts';

/** A wall clock that can be moved while a process runs. The monotonic one, which measures time, stays. */
export class Clock {
  /** Variables of the processes that it is the clock of. */
  readonly env: Record<string, string>;
  readonly #file: string;

  constructor() {
    const library = Clock.library();
    if (library === undefined) throw new Error('libfaketime is missing; install with: apt-get install -y libfaketime');
    this.#file = join(directory('clock'), 'offset');
    this.move(0);
    this.env = {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_CACHE_DURATION: '1',
      // The first is the name in old versions.
      DONT_FAKE_MONOTONIC: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
  }

  static library(): string | undefined {
    return globSync('/usr/lib/*/faketime/libfaketimeMT.so.1')[0];
  }

  /** @param seconds from the true time */
  move(seconds: number): void {
    writeFileSync(this.#file, `${seconds < 0 ? '-' : '+'}${Math.abs(seconds)}\n`);
  }
}
