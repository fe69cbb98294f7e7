import { createHash } from 'node:crypto';
import { toBinary } from '@bufbuild/protobuf';
import { type Environment, EnvironmentSchema } from '@harrier/shared/gen/module';

/** Environments are the same objects from call to call of a module. */
const known = new WeakMap<Environment, string>();

/**
 * What agents may hold already: an interpreter that serves one call of a module after another, or an environment that had to be
 * built. Undefined for what every agent can start at once.
 * @param reusedModule id of the module version, if its interpreters are kept
 */
export function warmKeyOf(environment: Environment, reusedModule: string | undefined): string | undefined {
  if (reusedModule !== undefined) return `module ${reusedModule}`;
  if ((environment.kind.case ?? 'inline') === 'inline') return undefined;
  let key = known.get(environment);
  if (key === undefined) {
    key = createHash('sha256').update(toBinary(EnvironmentSchema, environment)).digest('base64url');
    known.set(environment, key);
  }
  return key;
}
