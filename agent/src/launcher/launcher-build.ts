import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Names what a launcher is started from: another program or other settings have another name.
 * @param directory of the runtime's files
 */
export function launcherBuild(directory: string, settings: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(settings));
  for (const name of readdirSync(directory).toSorted()) {
    if (name.endsWith('.py')) hash.update(`\0${name}\0`).update(readFileSync(join(directory, name)));
  }
  return hash.digest('hex').slice(0, 16);
}
