import { expect, test } from 'vitest';
import { SettingsReader } from '../settings.ts';
import { readTracingSettings } from './tracing-settings.ts';

function read(values: Record<string, string>) {
  const reader = new SettingsReader(values);
  return { settings: readTracingSettings(reader), problems: reader.problems };
}

test('nothing is traced without an endpoint, or when that is turned off', () => {
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' };
  for (const values of [
    {},
    { ...endpoint, OTEL_SDK_DISABLED: 'true' },
    { ...endpoint, OTEL_TRACES_EXPORTER: 'none' },
  ] as Record<string, string>[]) {
    expect(read(values)).toEqual({ settings: undefined, problems: [] });
  }
});

test('the endpoint of all signals gets the path of traces, that of traces is taken as it is', () => {
  const url = (values: Record<string, string>) => read(values).settings?.url;
  expect(url({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318/base/' })).toBe('http://c:4318/base/v1/traces');
  expect(
    url({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318', OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'https://t/in' }),
  ).toBe('https://t/in');
});

test('OpenTelemetry’s variables are read', () => {
  const { settings, problems } = read({
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318',
    OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer%20x, tenant=a',
    OTEL_EXPORTER_OTLP_TIMEOUT: '2500',
    OTEL_BSP_SCHEDULE_DELAY: '100',
    OTEL_SERVICE_NAME: 'mine',
    OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment=test',
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.25',
  });
  expect(problems).toEqual([]);
  expect(settings).toEqual({
    url: 'http://c:4318/v1/traces',
    headers: { authorization: 'Bearer x', tenant: 'a' },
    timeoutMs: 2500,
    delayMs: 100,
    serviceName: 'mine',
    resource: { 'deployment.environment': 'test' },
    sampler: { ratio: 0.25, followsParent: true },
  });
});

test('every wrong value is a problem that names its variable, and no credential', () => {
  const { problems } = read({
    OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318',
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    OTEL_EXPORTER_OTLP_HEADERS: 'hunter2',
    OTEL_TRACES_SAMPLER: 'often',
    OTEL_TRACES_SAMPLER_ARG: '2',
  });
  for (const name of ['ENDPOINT must be', 'PROTOCOL must be', 'HEADERS must be', 'SAMPLER must be', 'ARG must be']) {
    expect(problems.filter((problem) => problem.includes(name))).toHaveLength(1);
  }
  expect(problems.join()).not.toContain('hunter2');
});
