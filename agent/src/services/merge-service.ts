import { DEFAULTS, type ServiceEntry } from './read-service.ts';
import type { ServiceDefinition } from './service-definition.ts';

/**
 * A service as its entry and the override of the environment have it. A field of the override replaces that of the entry;
 * of `env` and `limits` each variable and each limit does, and a variable without a value is taken away.
 */
export function merged(name: string, entry: ServiceEntry, override: ServiceEntry | undefined): ServiceDefinition {
  const pick = <K extends Exclude<keyof typeof DEFAULTS, 'env' | 'limits'>>(field: K): (typeof DEFAULTS)[K] =>
    (override?.[field] ?? entry[field] ?? DEFAULTS[field]) as (typeof DEFAULTS)[K];
  const env = Object.entries({ ...entry.env, ...override?.env }).filter(
    (pair): pair is [string, string] => pair[1] !== null,
  );
  return {
    name,
    image: override?.image ?? entry.image ?? '',
    pull: pick('pull'),
    command: pick('command'),
    entrypoint: pick('entrypoint'),
    env: Object.fromEntries(env),
    user: pick('user'),
    workingDir: pick('workingDir'),
    volumes: pick('volumes'),
    ports: pick('ports'),
    networks: pick('networks'),
    limits: { ...DEFAULTS.limits, ...entry.limits, ...override?.limits },
    gpus: pick('gpus'),
    health: pick('health'),
    restart: pick('restart'),
    stopGraceMs: pick('stopGraceMs'),
  };
}
