import type { SettingsReader } from '../settings.ts';

/** Where spans are sent, and which; OpenTelemetry's own variables say so. */
export interface TracingSettings {
  /** Spans are posted there, as OTLP in protobuf. */
  url: string;
  /** Beside those of the protocol. May hold credentials. */
  headers: Readonly<Record<string, string>>;
  /** For one request. */
  timeoutMs: number;
  /** How long spans that have ended are gathered, at most. */
  delayMs: number;
  /** Undefined: the process's own name. */
  serviceName: string | undefined;
  resource: Readonly<Record<string, string>>;
  sampler: Sampler;
}

export interface Sampler {
  /** Of the traces that begin here: 0 to 1. */
  ratio: number;
  /** What comes with a trace goes on in it if that one is kept. */
  followsParent: boolean;
}

const SAMPLERS = {
  always_on: { ratio: () => 1, followsParent: false },
  always_off: { ratio: () => 0, followsParent: false },
  traceidratio: { ratio: (share: number) => share, followsParent: false },
  parentbased_always_on: { ratio: () => 1, followsParent: true },
  parentbased_always_off: { ratio: () => 0, followsParent: true },
  parentbased_traceidratio: { ratio: (share: number) => share, followsParent: true },
} as const;
const SAMPLER_NAMES = Object.keys(SAMPLERS) as (keyof typeof SAMPLERS)[];

const PREFIX = 'OTEL_EXPORTER_OTLP';
const MS = { min: 1, max: 600_000 };
/** Names of variables whose value may be a credential: no process that is started from here should inherit them. */
export const TRACING_SECRETS = [`${PREFIX}_HEADERS`, `${PREFIX}_TRACES_HEADERS`];

/**
 * Reads OpenTelemetry's variables, as far as they concern traces over OTLP/HTTP:
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 * @returns undefined where no endpoint is named, or tracing is turned off
 */
export function readTracingSettings(reader: SettingsReader): TracingSettings | undefined {
  const isOff = reader.flag('OTEL_SDK_DISABLED', false);
  const exporter = reader.oneOf('OTEL_TRACES_EXPORTER', 'otlp', ['otlp', 'none']);
  const own = reader.text(`${PREFIX}_TRACES_ENDPOINT`);
  const common = reader.text(`${PREFIX}_ENDPOINT`);
  if (isOff || exporter === 'none' || (own === undefined && common === undefined)) return undefined;
  const url =
    own === undefined
      ? endpoint(reader, `${PREFIX}_ENDPOINT`, common ?? '', 'v1/traces')
      : endpoint(reader, `${PREFIX}_TRACES_ENDPOINT`, own, '');
  const protocol = specific(reader, 'PROTOCOL');
  reader.oneOf(protocol, 'http/protobuf', ['http/protobuf']);
  const { ratio, followsParent } =
    SAMPLERS[reader.oneOf('OTEL_TRACES_SAMPLER', 'parentbased_always_on', SAMPLER_NAMES)];
  return {
    url,
    headers: pairs(reader, specific(reader, 'HEADERS')),
    timeoutMs: reader.integer(specific(reader, 'TIMEOUT'), 10_000, MS),
    delayMs: reader.integer('OTEL_BSP_SCHEDULE_DELAY', 5_000, MS),
    serviceName: reader.text('OTEL_SERVICE_NAME'),
    resource: pairs(reader, 'OTEL_RESOURCE_ATTRIBUTES'),
    sampler: { ratio: ratio(share(reader)), followsParent },
  };
}

/** The variable for traces alone, where it is set, before that of all signals. */
function specific(reader: SettingsReader, name: string): string {
  const own = `${PREFIX}_TRACES_${name}`;
  return reader.text(own) === undefined ? `${PREFIX}_${name}` : own;
}

function endpoint(reader: SettingsReader, name: string, text: string, path: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    reader.problems.push(`${name} must be an http(s) URL, for example http://localhost:4318`);
    return '';
  }
  if (path !== '') url.pathname = `${url.pathname.replace(/\/+$/, '')}/${path}`;
  return url.href;
}

function share(reader: SettingsReader): number {
  const text = reader.text('OTEL_TRACES_SAMPLER_ARG', '1');
  const value = Number(text);
  if (value >= 0 && value <= 1) return value;
  reader.problems.push(`OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1, not "${text}"`);
  return 1;
}

/** `key=value,key=value`, values with percent-encoding. Nothing of a value is told in a problem: it may be a credential. */
function pairs(reader: SettingsReader, name: string): Record<string, string> {
  const result: Record<string, string> = {};
  for (const pair of reader.list(name)) {
    const at = pair.indexOf('=');
    try {
      if (at < 1) throw new Error('no key');
      result[pair.slice(0, at).trim()] = decodeURIComponent(pair.slice(at + 1).trim());
    } catch {
      reader.problems.push(`${name} must be KEY=VALUE,KEY=VALUE with percent-encoded values`);
    }
  }
  return result;
}
