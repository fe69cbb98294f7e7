import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { directory, REPOSITORY } from './workspace.ts';

/** Where scripts/lib/setup.mjs has installed them. */
const PACKAGE = join(REPOSITORY, '.tools/kubernetes-schemas/kubernetes_validate/kubernetes-json-schema');
/** Kinds that are no part of Kubernetes. The file says where it is from. */
const OTHERS = join(REPOSITORY, 'test/fixtures/kubernetes');
const INSTALL = 'node scripts/test.mjs';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Schema = { [key: string]: Json };

/**
 * Schemas of one version of Kubernetes that refuse unknown fields, in the form that kubeconform reads from a directory. Those of
 * the package share a file by references that kubeconform would look for on the network: here each has what it refers to.
 * @param version for example `1.37.0`
 * @returns what kubeconform takes as `-schema-location`
 */
export function kubernetesSchemas(version: string, kinds: readonly string[]): string {
  const source = join(PACKAGE, `v${version}-local-strict`);
  const target = directory('schemas');
  const { $defs } = readSchema(join(source, '_definitions.json')) as { $defs: Record<string, Schema> };
  for (const kind of kinds) {
    const { $id: _id, ...schema } = readSchema(join(source, `${kind}.json`));
    const used: Record<string, Json> = {};
    const whole = localised(schema, $defs, used) as Schema;
    writeFileSync(join(target, `${kind}.json`), JSON.stringify({ ...whole, $defs: used }));
  }
  for (const file of readdirSync(OTHERS)) writeFileSync(join(target, file), readFileSync(join(OTHERS, file)));
  return join(target, '{{ .ResourceKind }}{{ .KindSuffix }}.json');
}

function readSchema(path: string): Schema {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new Error(`the schema ${path} is missing; install it with: ${INSTALL}`, { cause });
  }
}

/** The same with references into itself; what they stand for is added to `used`. */
function localised(value: Json, definitions: Record<string, Schema>, used: Record<string, Json>): Json {
  if (Array.isArray(value)) return value.map((item) => localised(item, definitions, used));
  if (typeof value !== 'object' || value === null) return value;
  const name = typeof value.$ref === 'string' ? /#\/\$defs\/(.+)$/.exec(value.$ref)?.[1] : undefined;
  if (name !== undefined) {
    if (!Object.hasOwn(used, name)) {
      // Before it is filled: definitions may be recursive.
      used[name] = true;
      used[name] = localised(definitions[name] ?? {}, definitions, used);
    }
    return { ...value, $ref: `#/$defs/${name}` };
  }
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, localised(inner, definitions, used)]));
}
