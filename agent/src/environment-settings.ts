import { isAbsolute, resolve } from 'node:path';
import type { SettingsReader } from '@harrier/shared';
import type { EnvironmentSettings } from './environment/package-providers.ts';

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
    allowedIndexes: settings.list('HARRIER_AGENT_ALLOWED_INDEXES'),
    allowExtraIndex: settings.flag('HARRIER_AGENT_ALLOW_EXTRA_INDEX', false),
    indexHosts: settings.list('HARRIER_AGENT_INDEX_HOSTS'),
    channels: settings.list('HARRIER_AGENT_CONDA_CHANNELS', 'conda-forge'),
    allowedChannels: settings.list('HARRIER_AGENT_ALLOWED_CHANNELS'),
  };
}
