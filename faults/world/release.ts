import { cpSync, existsSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { directory, REPOSITORY } from '../../test/support/workspace.ts';

/** An installation of the agent in a directory of its own, as an upgrade brings one. */
export interface Release {
  /** The agent's program. */
  main: string;
  /** The runtime as it lies there; containers see it as `/harrier`. */
  runtime: string;
}

export function install(): Release {
  const root = directory('release');
  cpSync(join(REPOSITORY, 'agent'), join(root, 'agent'), {
    recursive: true,
    filter: (path) => !path.includes('/node_modules') && !path.includes('__pycache__'),
  });
  for (const name of ['node_modules', 'agent/node_modules', 'package.json', 'deploy']) {
    if (existsSync(join(REPOSITORY, name))) symlinkSync(join(REPOSITORY, name), join(root, name));
  }
  return { main: join(root, 'agent/src/main.ts'), runtime: join(root, 'agent/runtime') };
}
