import type { MapReader } from '@harrier/shared/yaml-file/map-reader';
import type { HealthCheck } from './service-definition.ts';

const ON_FAILURE = { restart: 'restart', report: 'report' } as const;
/** As Docker's own. */
const DEFAULT_INTERVAL_MS = 30_000;
const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_RETRIES = 3;
/** The engine refuses less. */
const MIN_MS = 1;

/** Reads `health`; undefined when there is none, or one with a problem. */
export function readHealth(reader: MapReader): HealthCheck | undefined {
  const fields = reader.map('health');
  if (fields === undefined) return undefined;
  const argv = fields.texts('command');
  const url = fields.text('http');
  const times = {
    intervalMs: positive(fields, 'interval') ?? DEFAULT_INTERVAL_MS,
    timeoutMs: positive(fields, 'timeout') ?? DEFAULT_TIMEOUT_MS,
    startPeriodMs: fields.durationMs('start_period') ?? 0,
  };
  const retries = fields.integer('retries') ?? DEFAULT_RETRIES;
  if (retries < 1) fields.report('retries', `must be 1 or more, not ${retries}`);
  const onFailure = fields.oneOf<HealthCheck['onFailure']>('on_failure', ON_FAILURE) ?? 'restart';
  fields.finish();
  const probe = probeOf(fields, argv, url);
  return probe === undefined ? undefined : { probe, ...times, retries, onFailure };
}

function probeOf(
  fields: MapReader,
  argv: readonly string[] | undefined,
  url: string | undefined,
): HealthCheck['probe'] | undefined {
  if (fields.has('command') === fields.has('http')) {
    fields.report('command', 'exactly one of `command` and `http` says how it is checked');
    return undefined;
  }
  if (argv !== undefined) {
    if (argv.length > 0) return { kind: 'command', argv };
    fields.report('command', 'must name a program');
  }
  if (url !== undefined) {
    if (/^https?:$/.test(URL.canParse(url) ? new URL(url).protocol : '')) return { kind: 'http', url };
    fields.report('http', `must be a URL like http://127.0.0.1:8080/healthz, not "${url}"`);
  }
  return undefined;
}

function positive(fields: MapReader, name: string): number | undefined {
  const ms = fields.durationMs(name);
  if (ms === undefined || ms >= MIN_MS) return ms;
  fields.report(name, 'must be longer than 0');
  return undefined;
}
