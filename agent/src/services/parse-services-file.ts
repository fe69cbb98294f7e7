import { type MapReader, rootOf } from '@harrier/shared/yaml-file/map-reader';
import { byPosition, type FileProblem } from '@harrier/shared/yaml-file/problem';
import { YamlSource } from '@harrier/shared/yaml-file/yaml-source';
import { type CheckOptions, reportConflicts, reportUnfit } from './check-services.ts';
import { merged } from './merge-service.ts';
import { readService, type ServiceEntry } from './read-service.ts';
import type { ServiceDefinition } from './service-definition.ts';

export interface ServicesFile {
  services: readonly ServiceDefinition[];
  /** The services end with the agent; else they go on, and the next agent takes them up. */
  stopWithAgent: boolean;
  /** All of them, by their place in the file. Not empty: the services are not to be used. */
  problems: readonly FileProblem[];
}

export interface ParseOptions extends CheckOptions {
  /** Whose overrides are in force. */
  environment: string;
  /** Directory of the file, that relative paths start from. */
  base: string;
}

const NAME = /^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$/;

/**
 * Reads the text of a services file: `services`, a list, and `environments`, which override fields of services by name.
 * Every environment of the file is checked, whichever is in force.
 */
export function parseServicesFile(text: string, options: ParseOptions): ServicesFile {
  const source = new YamlSource(text);
  const root =
    source.problems.length > 0 ? undefined : rootOf(source, 'a services file is a map with the key `services`');
  if (root === undefined) return { services: [], stopWithAgent: false, problems: source.problems.toSorted(byPosition) };
  const entries = new Map<string, ServiceEntry>();
  for (const reader of root.maps('services') ?? []) {
    const name = reader.text('name') ?? '';
    if (!reader.has('name')) reader.report('name', 'is missing');
    else if (name !== '' && !NAME.test(name)) {
      reader.report('name', `must be of a-z, 0-9, "-", "_" and ".", at most 63, not "${name}"`);
    }
    const first = entries.get(name);
    if (first !== undefined && name !== '') {
      reader.report('name', `"${name}" is already in line ${first.reader.positionOf('name').line}`);
    }
    const entry = readService(reader, options.base);
    reader.finish();
    if (first === undefined && name !== '') entries.set(name, entry);
  }
  const environments = readEnvironments(root.mapsByKey('environments'), entries, options.base);
  if (environments.size > 0 && !environments.has(options.environment) && options.environment !== DEFAULT_ENVIRONMENT) {
    const known = [...environments.keys()].join(', ');
    root.report(
      'environments',
      `there is no environment "${options.environment}" (HARRIER_ENVIRONMENT); there are ${known}`,
    );
  }
  const stopWithAgent = root.flag('stop_with_agent') ?? false;
  root.finish();
  let services: ServiceDefinition[] = [];
  for (const name of new Set([...environments.keys(), options.environment])) {
    const found = assemble(entries, environments.get(name) ?? new Map(), options);
    if (name === options.environment) services = found;
  }
  return { services, stopWithAgent, problems: unique(source.problems).toSorted(byPosition) };
}

/** In force when the operator names none; a file need not mention it. */
export const DEFAULT_ENVIRONMENT = 'default';

type Overrides = ReadonlyMap<string, ServiceEntry>;

function readEnvironments(
  environments: ReadonlyMap<string, MapReader> | undefined,
  entries: ReadonlyMap<string, ServiceEntry>,
  base: string,
): Map<string, Overrides> {
  const read = new Map<string, Overrides>();
  for (const [environment, fields] of environments ?? []) {
    const overrides = new Map<string, ServiceEntry>();
    for (const [name, reader] of fields.mapsByKey('services') ?? []) {
      if (!entries.has(name)) {
        const known = [...entries.keys()].join(', ');
        fields.report('services', `there is no service "${name}" to override; there are ${known}`);
      }
      overrides.set(name, readService(reader, base));
      reader.finish();
    }
    fields.finish();
    read.set(environment, overrides);
  }
  return read;
}

function assemble(
  entries: ReadonlyMap<string, ServiceEntry>,
  overrides: Overrides,
  options: ParseOptions,
): ServiceDefinition[] {
  const services: { definition: ServiceDefinition; entry: ServiceEntry; override: ServiceEntry | undefined }[] = [];
  for (const [name, entry] of entries) {
    const override = overrides.get(name);
    if ((override?.enabled ?? entry.enabled) === false) continue;
    const definition = merged(name, entry, override);
    reportUnfit(definition, { entry, override }, options);
    services.push({ definition, entry, override });
  }
  reportConflicts(services);
  return services.map(({ definition }) => definition);
}

/** What is wrong with a service is wrong in every environment that does not override it. */
function unique(problems: readonly FileProblem[]): FileProblem[] {
  const known = new Map(problems.map((problem) => [JSON.stringify(problem), problem]));
  return [...known.values()];
}
