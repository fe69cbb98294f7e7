import { isAbsolute, resolve } from 'node:path';
import type { SettingsReader } from '@harrier/shared';

/** What an operator may set of environments that are built; docs/environments.md explains it. */
export interface EnvironmentSettings {
  /** Where they are kept; undefined: in the data directory where the sandbox's user can reach it. */
  directory: string | undefined;
  /** Bytes of all of them; undefined: a part of the disk. */
  maxBytes: number | undefined;
  /** Bytes of the disk that builds leave free. */
  minFreeBytes: number;
  /** Package indexes that a request may name beside the agent's own. */
  allowedIndexes: readonly string[];
  /** Whether a request may name several indexes at once. */
  allowExtraIndex: boolean;
  /** `HOST:PORT` where the indexes keep their files, if it is elsewhere. */
  indexHosts: readonly string[];
  /** Conda channels where a request names none. */
  channels: readonly string[];
  /** Conda channels that a request may name beside those. */
  allowedChannels: readonly string[];
}

const MIB = 1024 * 1024;

export function readEnvironmentSettings(settings: SettingsReader): EnvironmentSettings {
  const directory = settings.text('HARRIER_AGENT_ENVIRONMENTS_DIR');
  if (directory !== undefined && !isAbsolute(directory)) {
    settings.problems.push(`HARRIER_AGENT_ENVIRONMENTS_DIR must be an absolute path, not "${directory}"`);
  }
  const maxBytes = settings.text('HARRIER_AGENT_ENVIRONMENTS_BYTES');
  const bytes = { min: 64 * MIB, max: Number.MAX_SAFE_INTEGER };
  return {
    directory: directory === undefined ? undefined : resolve(directory),
    maxBytes: maxBytes === undefined ? undefined : settings.integer('HARRIER_AGENT_ENVIRONMENTS_BYTES', 0, bytes),
    minFreeBytes: settings.integer('HARRIER_AGENT_MIN_FREE_BYTES', 1024 * MIB, { ...bytes, min: 0 }),
    allowedIndexes: list(settings, 'HARRIER_AGENT_ALLOWED_INDEXES'),
    allowExtraIndex: settings.flag('HARRIER_AGENT_ALLOW_EXTRA_INDEX', false),
    indexHosts: list(settings, 'HARRIER_AGENT_INDEX_HOSTS'),
    channels: list(settings, 'HARRIER_AGENT_CONDA_CHANNELS', 'conda-forge'),
    allowedChannels: list(settings, 'HARRIER_AGENT_ALLOWED_CHANNELS'),
  };
}

function list(settings: SettingsReader, name: string, fallback = ''): string[] {
  const parts = settings.text(name, fallback).split(',');
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}
