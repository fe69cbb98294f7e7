import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { anAgent, type Fault, lasting, TAKES_ATTEMPTS } from './fault.ts';

const CHUNK_BYTES = 1024 * 1024;
const LASTING_MS = 5_000;

/** The disk of an agent's data has no room for a while. */
export const diskFull: Fault = {
  ...TAKES_ATTEMPTS,
  outputMayBeDropped: true,
  needs: ['root'],
  async run(context) {
    const { agent, selector } = anAgent(context);
    const filler = join(agent.dataDirectory, 'filler');
    fill(filler);
    await lasting(LASTING_MS);
    rmSync(filler, { force: true });
    return [selector];
  },
};

/** Writes until there is no room left. */
function fill(path: string): void {
  const file = openSync(path, 'w');
  const chunk = Buffer.alloc(CHUNK_BYTES);
  try {
    for (let bytes = CHUNK_BYTES; bytes >= 1; bytes = Math.floor(bytes / 2)) {
      try {
        while (writeSync(file, chunk, 0, bytes) > 0);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      }
    }
  } finally {
    closeSync(file);
  }
}
