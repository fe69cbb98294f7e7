import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  armFailpoints,
  type HostPort,
  readTracingSettings,
  SettingsReader,
  type SystemdSettings,
  type TracingSettings,
  takeSystemdSettings,
  withoutCredentials,
} from '@harrier/shared';
import type { AdmissionSettings } from './admission/admission.ts';
import { parsePublicUrl } from './api/install/public-url.ts';
import { EXTRA_LABELS, type ExtraLabel } from './metrics/execution-metrics.ts';
import type { RetentionSettings } from './retention/retention.ts';

export interface Config {
  /** gRPC, Connect, REST and agent links. */
  listen: HostPort;
  /** A second listener for gRPC alone; absent: none. */
  grpcListen: HostPort | undefined;
  /** Prometheus metrics. */
  metricsListen: HostPort;
  /** What whoever reads the metrics must bring as a bearer token; absent: nothing. */
  metricsToken: string | undefined;
  /** Labels of metrics that may have any number of values. */
  metricsLabels: readonly ExtraLabel[];
  /** Absent: nothing is traced. */
  tracing: TracingSettings | undefined;
  dataDirectory: string;
  /** postgres:// URL; absent: embedded PostgreSQL in the data directory. */
  databaseUrl: string | undefined;
  /** The modules file; absent: none. */
  modulesFile: string | undefined;
  /** The file of task classes; absent: those that every control plane has. */
  taskClassesFile: string | undefined;
  /** PEM files; with them the listeners speak TLS. */
  tls: { certFile: string; keyFile: string } | undefined;
  /** The agents that can be installed from here, and where those find it; absent: where the request came to. */
  install: { bundlesDirectory: string; publicUrl: string | undefined };
  logLevel: LogLevel;
  /** How long an agent may believe that it owns its attempts without hearing of us. */
  leaseMs: number;
  /** How long work of agents that have gone all at once is kept for them, at most. */
  brakeMs: number;
  /** Where events are written, one JSON object a line; absent: nowhere. */
  eventsFile: string | undefined;
  retention: RetentionSettings;
  admission: AdmissionSettings;
  /** Bodies of requests that may be in memory at once. */
  maxBodiesBytes: number;
  /** Readers of one tenant that may follow executions at this replica; 0: any number. */
  maxWatchers: number;
  /** Schedules that one tenant may have; 0: any number. */
  maxSchedules: number;
  /** How long calls in flight may take to finish when the process stops. */
  stopGraceMs: number;
  /** The service manager that has started this process and waits for word of it; undefined: none. */
  systemd: SystemdSettings | undefined;
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
type LogLevel = (typeof LOG_LEVELS)[number];

/** Beside the sources, where `npm run build:agent` puts them. */
const BUNDLES = fileURLToPath(new URL('../../bundles', import.meta.url));
const DAYS = { min: 0, max: 36_500 };
const MIB = 1024 * 1024;
/** Some seconds of work for the database. */
const MAX_UNSTORED = 10_000;

/** Settings by the names of their environment variables; a flag that is given replaces its variable. */
export type Overrides = Partial<
  Record<
    | 'HARRIER_LISTEN'
    | 'HARRIER_GRPC_PORT'
    | 'HARRIER_METRICS_LISTEN'
    | 'HARRIER_DATA_DIR'
    | 'HARRIER_DATABASE_URL'
    | 'HARRIER_MODULES_FILE'
    | 'HARRIER_TASK_CLASSES_FILE'
    | 'HARRIER_TLS_CERT_FILE'
    | 'HARRIER_TLS_KEY_FILE'
    | 'HARRIER_LOG_LEVEL'
    | 'HARRIER_LEASE_S'
    | 'HARRIER_BRAKE_S'
    | 'HARRIER_EVENTS_FILE'
    | 'HARRIER_STOP_GRACE_S',
    string | undefined
  >
>;

export type ConfigResult =
  | {
      config: Config;
      /** As the process was started with. */
      environment: Readonly<Record<string, string | undefined>>;
    }
  | { problems: string[] };

/** Reads the configuration. @returns it, or every problem at once. */
export function readConfig(overrides: Overrides): ConfigResult {
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
  const environment = { ...process.env };
  const reader = new SettingsReader({ ...process.env, ...Object.fromEntries(given) });
  const listen = reader.address('HARRIER_LISTEN', { host: '127.0.0.1', port: 8000 });
  const grpcPort = reader.text('HARRIER_GRPC_PORT');
  const certFile = reader.text('HARRIER_TLS_CERT_FILE');
  const keyFile = reader.text('HARRIER_TLS_KEY_FILE');
  if ((certFile === undefined) !== (keyFile === undefined)) {
    reader.problems.push('HARRIER_TLS_CERT_FILE and HARRIER_TLS_KEY_FILE go together; only one is set');
  }
  const eventsFile = reader.text('HARRIER_EVENTS_FILE');
  const modulesFile = reader.text('HARRIER_MODULES_FILE');
  const taskClassesFile = reader.text('HARRIER_TASK_CLASSES_FILE');
  const databaseUrl = reader.text('HARRIER_DATABASE_URL');
  if (databaseUrl !== undefined && !/^postgres(ql)?:\/\//.test(databaseUrl)) {
    reader.problems.push('HARRIER_DATABASE_URL must be a postgres:// URL');
  }
  const publicUrlText = reader.text('HARRIER_PUBLIC_URL');
  const publicUrl = publicUrlText === undefined ? undefined : parsePublicUrl(publicUrlText);
  if (publicUrlText !== undefined && publicUrl === undefined) {
    reader.problems.push(
      `HARRIER_PUBLIC_URL must be http(s)://HOST[:PORT][/PATH], not "${withoutCredentials(publicUrlText)}"`,
    );
  }
  const config: Config = {
    listen,
    grpcListen:
      grpcPort === undefined
        ? undefined
        : { host: listen.host, port: reader.integer('HARRIER_GRPC_PORT', 50_051, { min: 0, max: 65_535 }) },
    metricsListen: reader.address('HARRIER_METRICS_LISTEN', { host: '127.0.0.1', port: 9464 }),
    metricsToken: reader.secretFile('HARRIER_METRICS_TOKEN_FILE'),
    metricsLabels: extraLabels(reader),
    tracing: readTracingSettings(reader),
    dataDirectory: resolve(reader.text('HARRIER_DATA_DIR', '.harrier')),
    databaseUrl,
    modulesFile: modulesFile === undefined ? undefined : resolve(modulesFile),
    taskClassesFile: taskClassesFile === undefined ? undefined : resolve(taskClassesFile),
    tls: certFile === undefined || keyFile === undefined ? undefined : { certFile, keyFile },
    install: { bundlesDirectory: resolve(reader.text('HARRIER_AGENT_BUNDLES', BUNDLES)), publicUrl },
    logLevel: reader.oneOf('HARRIER_LOG_LEVEL', 'info', LOG_LEVELS),
    leaseMs: reader.integer('HARRIER_LEASE_S', 30, { min: 3, max: 3600 }) * 1000,
    brakeMs: reader.integer('HARRIER_BRAKE_S', 300, { min: 0, max: 86_400 }) * 1000,
    eventsFile: eventsFile === undefined ? undefined : resolve(eventsFile),
    retention: {
      executionDays: reader.integer('HARRIER_RETENTION_DAYS', 30, DAYS),
      logDays: reader.integer('HARRIER_LOG_RETENTION_DAYS', 0, DAYS),
      eventDays: reader.integer('HARRIER_EVENT_RETENTION_DAYS', 30, DAYS),
      maxBytes: reader.integer('HARRIER_RETENTION_BYTES', 0, { min: 0, max: Number.MAX_SAFE_INTEGER }),
    },
    admission: {
      maxQueued: reader.integer('HARRIER_MAX_QUEUED', 100_000, { min: 0, max: 100_000_000 }),
      maxPerSecond: reader.integer('HARRIER_MAX_PER_SECOND', 0, { min: 0, max: 1_000_000 }),
      maxUnstored: MAX_UNSTORED,
      maxActive: reader.integer('HARRIER_MAX_ACTIVE', 0, { min: 0, max: 100_000_000 }),
    },
    maxSchedules: reader.integer('HARRIER_MAX_SCHEDULES', 1_000, { min: 0, max: 1_000_000 }),
    maxWatchers: reader.integer('HARRIER_MAX_WATCHERS', 5_000, { min: 0, max: 1_000_000 }),
    maxBodiesBytes: reader.integer('HARRIER_MAX_BODIES_BYTES', 256 * MIB, { min: 16 * MIB, max: 1024 * 1024 * MIB }),
    stopGraceMs: reader.integer('HARRIER_STOP_GRACE_S', 30, { min: 0, max: 3600 }) * 1000,
    systemd: takeSystemdSettings(process.env),
  };
  const failpoints = reader.text('HARRIER_FAILPOINTS');
  const wrong = failpoints === undefined ? undefined : armFailpoints(failpoints);
  if (wrong !== undefined) reader.problems.push(`HARRIER_FAILPOINTS: ${wrong}`);
  return reader.problems.length > 0 ? { problems: reader.problems } : { config, environment };
}

function extraLabels(reader: SettingsReader): ExtraLabel[] {
  return reader.list('HARRIER_METRICS_LABELS').flatMap((name) => {
    const label = EXTRA_LABELS.find((known) => known === name);
    if (label === undefined) {
      reader.problems.push(`HARRIER_METRICS_LABELS must be of ${EXTRA_LABELS.join(', ')}, with commas, not "${name}"`);
    }
    return label ?? [];
  });
}
