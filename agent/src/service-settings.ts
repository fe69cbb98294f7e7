import { resolve } from 'node:path';
import type { SettingsReader } from '@harrier/shared';
import type { ServiceSettings } from './services/services.ts';

/** As names of Kubernetes' namespaces: it becomes a label of metrics. */
const ENVIRONMENT = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const DEFAULT_ENVIRONMENT = 'default';

export function readServiceSettings(settings: SettingsReader): ServiceSettings {
  const path = settings.text('HARRIER_SERVICES_CONFIG');
  return { path: path === undefined ? undefined : resolve(path), environment: environment(settings) };
}

function environment(settings: SettingsReader): string {
  const text = settings.text('HARRIER_ENVIRONMENT', DEFAULT_ENVIRONMENT);
  if (ENVIRONMENT.test(text)) return text;
  settings.problems.push(`HARRIER_ENVIRONMENT must be of a-z, 0-9 and "-", at most 63, not "${text}"`);
  return DEFAULT_ENVIRONMENT;
}
