import { messageOf } from '@harrier/shared';
import type { MapReader } from '@harrier/shared/yaml-file/map-reader';
import { parseImageReference } from '../docker/image-reference.ts';
import type { PullRule } from '../docker/images.ts';
import { parsePort } from './port.ts';
import { readHealth } from './read-health.ts';
import type {
  HealthCheck,
  RestartRule,
  ServiceDefinition,
  ServiceLimits,
  ServicePort,
  ServiceVolume,
} from './service-definition.ts';
import { parseVolume } from './volume.ts';

/** What an entry of the file says of a service; what it does not say is undefined. */
export interface ServiceEntry {
  reader: MapReader;
  image: string | undefined;
  pull: PullRule | undefined;
  command: readonly string[] | undefined;
  entrypoint: readonly string[] | undefined;
  /** null: an override takes the variable away. */
  env: Readonly<Record<string, string | null>> | undefined;
  user: string | undefined;
  workingDir: string | undefined;
  volumes: readonly ServiceVolume[] | undefined;
  ports: readonly ServicePort[] | undefined;
  networks: readonly string[] | undefined;
  limits: Partial<ServiceLimits> | undefined;
  gpus: readonly string[] | undefined;
  health: HealthCheck | undefined;
  restart: RestartRule | undefined;
  stopGraceMs: number | undefined;
  /** false: the service is not wanted. */
  enabled: boolean | undefined;
  allowDockerSocket: boolean | undefined;
}

const PULLS = { always: 'always', 'if-missing': 'if_missing', never: 'never' } as const;
const RESTARTS = { always: 'always', 'on-failure': 'on-failure', never: 'never' } as const;
/** Docker's own rule for names. */
const NETWORK = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** An index says another card when one is gone. */
const GPU = /^(GPU|MIG)-[0-9a-zA-Z/-]+$/;
const VARIABLE = /^[^=\0]+$/;

/** What holds when neither entry nor override says anything. */
export const DEFAULTS: Omit<ServiceDefinition, 'name' | 'image'> = {
  pull: 'if_missing',
  command: [],
  entrypoint: [],
  env: {},
  user: '',
  workingDir: '',
  volumes: [],
  ports: [],
  networks: [],
  limits: { cpu: 0, memoryBytes: 0, processes: 0, logBytes: 16 * 1024 * 1024 },
  gpus: [],
  health: undefined,
  restart: 'always',
  // As `docker stop`.
  stopGraceMs: 10_000,
};

/**
 * Reads an entry of `services`, or an override of one. Problems go to the reader; what has one is absent.
 * @param base directory of the file
 */
export function readService(reader: MapReader, base: string): ServiceEntry {
  return {
    reader,
    image: parsed(reader, 'image', (text) => {
      parseImageReference(text);
      return text;
    }),
    pull: reader.oneOf<PullRule>('pull', PULLS),
    command: reader.texts('command'),
    entrypoint: reader.texts('entrypoint'),
    env: readEnv(reader),
    user: reader.text('user'),
    workingDir: reader.text('working_dir'),
    volumes: reader.parsedTexts('volumes', (text) => parseVolume(text, base)),
    ports: reader.parsedTexts('ports', parsePort),
    networks: readNetworks(reader),
    limits: readLimits(reader),
    gpus: reader.isText('gpus') ? readAllGpus(reader) : reader.parsedTexts('gpus', parseGpu),
    health: readHealth(reader),
    restart: reader.oneOf<RestartRule>('restart', RESTARTS),
    stopGraceMs: reader.durationMs('stop_grace'),
    enabled: reader.flag('enabled'),
    allowDockerSocket: reader.flag('allow_docker_socket'),
  };
}

function readEnv(reader: MapReader): Record<string, string | null> | undefined {
  const env = reader.textsByKey('env');
  const bad = Object.keys(env ?? {}).find((name) => !VARIABLE.test(name));
  if (bad !== undefined) reader.report('env', `"${bad}" is no name of a variable`);
  return env;
}

function readNetworks(reader: MapReader): readonly string[] | undefined {
  const networks = reader.parsedTexts('networks', (text) => {
    if (!NETWORK.test(text)) throw new Error(`"${text}" is no name of a network`);
    return text;
  });
  const alone = networks?.find((name) => name === 'host' || name === 'none');
  if (networks !== undefined && alone !== undefined && networks.length > 1) {
    reader.report('networks', `${alone} cannot be had together with other networks`);
  }
  return networks;
}

function readLimits(reader: MapReader): Partial<ServiceLimits> | undefined {
  const fields = reader.map('limits');
  if (fields === undefined) return undefined;
  const read = {
    cpu: atLeastZero(fields, 'cpu', fields.number('cpu')),
    memoryBytes: toNumber(fields.bytes('memory_bytes')),
    processes: atLeastZero(fields, 'processes', fields.integer('processes')),
    logBytes: toNumber(fields.bytes('log_bytes')),
  };
  fields.finish();
  return Object.fromEntries(Object.entries(read).filter(([, value]) => value !== undefined));
}

function atLeastZero(fields: MapReader, name: string, value: number | undefined): number | undefined {
  if (value === undefined || value >= 0) return value;
  fields.report(name, `must not be negative, as ${value} is`);
  return undefined;
}

function toNumber(bytes: bigint | undefined): number | undefined {
  return bytes === undefined ? undefined : Number(bytes);
}

function parseGpu(text: string): string {
  if (!GPU.test(text)) throw new Error(`must be the UUID of a GPU as nvidia-smi -L shows it, not "${text}"`);
  return text;
}

function readAllGpus(reader: MapReader): readonly string[] | undefined {
  const text = reader.text('gpus');
  if (text === 'all') return ['all'];
  reader.report('gpus', `must be all, or a list of UUIDs, not "${text}"`);
  return undefined;
}

function parsed<T>(reader: MapReader, name: string, parse: (text: string) => T): T | undefined {
  const text = reader.text(name);
  if (text === undefined) return undefined;
  try {
    return parse(text);
  } catch (error) {
    reader.report(name, messageOf(error));
    return undefined;
  }
}
