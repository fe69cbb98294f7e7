import type { Bind, StartEnvironment } from '../launcher/messages.ts';
import { ENVIRONMENT_PATH } from './build-runner.ts';
import type { PreparedEnvironment } from './environment.ts';
import { EnvironmentStore, type HeldEnvironment } from './environment-store.ts';

/**
 * A stored environment with a Python in `bin`, as the launcher takes it. It stays held until it is released.
 * @param variable names the environment to what runs in it: VIRTUAL_ENV or CONDA_PREFIX
 * @param binds what its interpreter needs beside it
 */
export function storedPython(
  held: HeldEnvironment,
  preload: readonly string[],
  variable: string,
  binds: readonly Bind[] = [],
): PreparedEnvironment {
  const start: StartEnvironment = {
    // Modules that are imported ahead make another zygote of the same environment.
    key: preload.length === 0 ? held.key : `${held.key} ${EnvironmentStore.keyOf(preload).slice(0, 16)}`,
    python: `${ENVIRONMENT_PATH}/bin/python`,
    binds: [{ source: held.tree, target: ENVIRONMENT_PATH, writable: false }, ...binds],
    variables: { [variable]: ENVIRONMENT_PATH, PATH: `${ENVIRONMENT_PATH}/bin:/usr/local/bin:/usr/bin:/bin` },
    preload,
  };
  held.runsAs(start.key);
  return { start, release: () => held.release() };
}
