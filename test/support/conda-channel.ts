import { execFileSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { directory, REPOSITORY } from './workspace.ts';

/** URL of a conda channel in a directory of this run: the machine's Python, and the package `greeter` that needs it. */
export function condaChannel(): string {
  const path = directory('channel');
  chmodSync(path, 0o755);
  execFileSync('/usr/bin/python3', [join(REPOSITORY, 'test', 'fixtures', 'conda_channel.py'), path]);
  return `file://${path}`;
}
