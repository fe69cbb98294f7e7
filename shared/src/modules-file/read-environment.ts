import { create } from '@bufbuild/protobuf';
import {
  Environment_CondaSchema as CondaSchema,
  Environment_DockerSchema as DockerSchema,
  type Environment,
  EnvironmentSchema,
  Environment_InlineSchema as InlineSchema,
  Environment_Docker_Pull as Pull,
  Environment_VenvSchema as VenvSchema,
} from '../gen/harrier/v1/module_pb.ts';
import type { MapReader } from '../yaml-file/map-reader.ts';

/** A file that an entry names, relative to the modules file; its text goes to `use`. */
export interface FileReference {
  /** For people: `modules[1].env.venv.lock`. */
  name: string;
  /** As written. */
  path: string;
  reader: MapReader;
  field: string;
  use(text: string): void;
}

const KINDS = ['inline', 'venv', 'conda', 'docker'] as const;
const PULLS: Readonly<Record<string, Pull>> = {
  'if-missing': Pull.IF_MISSING,
  always: Pull.ALWAYS,
  never: Pull.NEVER,
};

/**
 * Reads `env`: the name of an environment, or a map with its settings below the name.
 * @returns the environment, and the files that complete it; undefined when the entry has none, or one with a problem
 */
export function readEnvironment(
  fields: MapReader,
): { environment: Environment; files: FileReference[]; bare: boolean } | undefined {
  const choice = fields.choice('env');
  if (choice === undefined) return undefined;
  const kind = KINDS.find((known) => known === choice.key);
  if (kind === undefined) {
    fields.report('env', `there is no environment "${choice.key}"; there are ${KINDS.join(', ')}`);
    return undefined;
  }
  const settings = fields.choiceSettings('env');
  const files: FileReference[] = [];
  const environment = create(EnvironmentSchema, { kind: readKind(kind, settings, files) });
  settings?.finish();
  return { environment, files, bare: settings === undefined };
}

function readKind(
  kind: (typeof KINDS)[number],
  settings: MapReader | undefined,
  files: FileReference[],
): Environment['kind'] {
  switch (kind) {
    case 'inline':
      return { case: 'inline', value: create(InlineSchema) };
    case 'venv':
      return { case: 'venv', value: readVenv(settings, files) };
    case 'conda':
      return { case: 'conda', value: readConda(settings, files) };
    case 'docker':
      return { case: 'docker', value: readDocker(settings) };
  }
}

function readVenv(settings: MapReader | undefined, files: FileReference[]) {
  const venv = create(VenvSchema);
  if (settings === undefined) return venv;
  venv.python = settings.text('python') ?? '';
  venv.indexUrl = settings.text('index_url') ?? '';
  venv.extraIndexUrls = settings.texts('extra_index_urls') ?? [];
  if (settings.isText('requirements')) {
    addFile(settings, 'requirements', files, (text) => {
      venv.requirements = requirementLines(text);
    });
  } else venv.requirements = settings.texts('requirements') ?? [];
  addFile(settings, 'lock', files, (text) => {
    venv.lock = text;
  });
  addFile(settings, 'pyproject', files, (text) => {
    venv.pyproject = text;
  });
  return venv;
}

function readConda(settings: MapReader | undefined, files: FileReference[]) {
  const conda = create(CondaSchema);
  if (settings === undefined) return conda;
  conda.dependencies = settings.texts('dependencies') ?? [];
  conda.channels = settings.texts('channels') ?? [];
  addFile(settings, 'file', files, (text) => {
    conda.file = text;
  });
  addFile(settings, 'lock', files, (text) => {
    conda.lock = text;
  });
  return conda;
}

function readDocker(settings: MapReader | undefined) {
  const docker = create(DockerSchema);
  if (settings === undefined) return docker;
  docker.image = settings.text('image') ?? '';
  const pull = settings.text('pull');
  if (pull === undefined) return docker;
  const known = PULLS[pull];
  if (known === undefined) {
    settings.report('pull', `must be one of ${Object.keys(PULLS).join(', ')}, not "${pull}"`);
  } else docker.pull = known;
  return docker;
}

function addFile(reader: MapReader, field: string, files: FileReference[], use: (text: string) => void): void {
  const path = reader.text(field);
  if (path !== undefined) files.push({ name: `${reader.path}.${field}`, path, reader, field, use });
}

/** The requirements of a `requirements.txt`, one an entry: without comments, with continued lines joined. */
export function requirementLines(text: string): string[] {
  return text
    .replace(/\\\r?\n/g, ' ')
    .split(/\r?\n/)
    .map((line) => line.replace(/(^|\s)#.*$/, '').trim())
    .filter((line) => line !== '');
}
