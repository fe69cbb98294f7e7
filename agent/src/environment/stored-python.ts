import type { Bind, StartEnvironment } from '../launcher/messages.ts';
import { ENVIRONMENT_PATH } from './build-runner.ts';
import { type EnvironmentPlace, EnvironmentStore } from './environment-store.ts';

/**
 * A stored environment with a Python in `bin`, as the launcher takes it.
 * @param variable names the environment to what runs in it: VIRTUAL_ENV or CONDA_PREFIX
 * @param binds what its interpreter needs beside it
 */
export function storedPython(
  place: EnvironmentPlace,
  preload: readonly string[],
  variable: string,
  binds: readonly Bind[] = [],
): StartEnvironment {
  // Modules that are imported ahead make another zygote of the same environment.
  const key = preload.length === 0 ? place.key : `${place.key} ${EnvironmentStore.keyOf(preload).slice(0, 16)}`;
  place.runsAs(key);
  return {
    key,
    python: `${ENVIRONMENT_PATH}/bin/python`,
    binds: [{ source: place.tree, target: ENVIRONMENT_PATH, writable: false }, ...binds],
    variables: { [variable]: ENVIRONMENT_PATH, PATH: `${ENVIRONMENT_PATH}/bin:/usr/local/bin:/usr/bin:/bin` },
    preload,
  };
}
