import { randomUUID } from 'node:crypto';
import { availableParallelism, hostname, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import {
  armFailpoints,
  type HostPort,
  LINK_PATH,
  MAX_AGENT_SLOTS,
  readTracingSettings,
  SettingsReader,
  type SystemdSettings,
  TRACING_SECRETS,
  type TracingSettings,
  takeSystemdSettings,
  withoutCredentials,
} from '@harrier/shared';
import { readCapacitySettings } from './capacity-settings.ts';
import { type DockerSettings, readDockerSettings } from './docker-settings.ts';
import type { EnvironmentSettings } from './environment/package-providers.ts';
import { readEnvironmentSettings } from './environment-settings.ts';
import type { GpuSelection } from './gpu/gpu-selection.ts';
import { NETWORK_CAPS, type NetworkCap } from './job/limit-caps.ts';
import type { LogFileSettings } from './log/agent-logger.ts';
import { EXTRA_LABELS, type ExtraLabel } from './metrics/attempt-metrics.ts';
import { readServiceSettings } from './service-settings.ts';
import type { ServiceSettings } from './services/services.ts';
import { readSlurmSettings, type SlurmSettings } from './slurm-settings.ts';

export interface AgentConfig {
  /** `ws://host:port/agent/v1/link` of each control plane, as they were given. */
  linkUrls: readonly [string, ...string[]];
  /** Only used while the data directory has no joined identity. */
  joinToken: string;
  dataDir: string;
  /** Unix socket of the launcher. */
  launcherSocketPath: string;
  name: string;
  labels: Record<string, string>;
  metricsListen: HostPort;
  /** `HOST:PORT` where Prometheus finds them from outside this host; undefined: by where they listen. */
  metricsAdvertise: HostPort | undefined;
  /** What whoever reads the metrics must bring as a bearer token; undefined: nothing. */
  metricsToken: string | undefined;
  /** Labels of metrics that may have any number of values. */
  metricsLabels: readonly ExtraLabel[];
  /** Undefined: nothing is traced. */
  tracing: TracingSettings | undefined;
  /** Where the log goes beside standard output; undefined: nowhere. */
  logFile: LogFileSettings | undefined;
  /** Executions at once, at most. */
  slots: number;
  /** Processors that executions can have altogether. */
  cpus: number;
  /** Memory that executions can have altogether. */
  memoryBytes: number;
  /** Cards that executions get. */
  gpus: GpuSelection;
  /** Directory of the device nodes of cards. */
  gpuDevRoot: string;
  /** An assignment may ask for this much memory at most. */
  maxMemoryBytes: number;
  /** An assignment may ask for a `/tmp` of this size at most. */
  maxTmpBytes: number;
  /** An assignment may ask for this much network access at most. */
  maxNetwork: NetworkCap;
  /** Package index of environments that name none, and what calls with network INDEX may reach. May hold credentials. */
  indexUrl: string;
  allowUnsandboxed: boolean;
  logLevel: LogLevel;
  /** Interpreter of the launcher and of inline code; undefined takes `python3`, and lets the launcher look for another
   * one when the sandbox's user cannot reach it. */
  python: string | undefined;
  /** Most bytes of the launcher's spool; undefined leaves its default. */
  spoolBytes: number | undefined;
  /** How long running work may go on when the agent is asked to stop. */
  stopGraceMs: number;
  /** The launcher and everything that it runs ends with the agent. */
  stopLauncher: boolean;
  /** Whether the agent starts a launcher where there is none; else a service manager does. */
  startLauncher: boolean;
  /** The service manager that has started this process and waits for word of it; undefined: none. */
  systemd: SystemdSettings | undefined;
  docker: DockerSettings;
  slurm: SlurmSettings;
  environments: EnvironmentSettings;
  services: ServiceSettings;
  /** Where tools of the host are looked for, as in PATH. */
  searchPath: string;
  /** New for every start. */
  instanceId: string;
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
type LogLevel = (typeof LOG_LEVELS)[number];

/** Enough for work that mostly waits; a slot costs nothing while it is free. */
const SLOTS_PER_CORE = 32;
/** `sun_path` of sockaddr_un, with its end. */
const MAX_SOCKET_PATH_BYTES = 107;
const DEFAULT_INDEX_URL = 'https://pypi.org/simple';
const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const BYTES = { min: 1, max: Number.MAX_SAFE_INTEGER };

/** Every problem of the settings, one a line. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** The environment as this process got it, the join token included: only to start the same program again. */
export function startEnvironment(): Record<string, string | undefined> {
  return { ...process.env };
}

/**
 * Settings from the environment, where each flag that was given stands above its variable. The join token leaves the
 * environment, so that no process started from here inherits it.
 * @param flags values by the name of their variable; labels of flags add to those of the variable
 * @throws ConfigError with every problem at once
 */
export function readConfig(
  flags: Readonly<Record<string, string | undefined>>,
  environment: Record<string, string | undefined> = process.env,
): AgentConfig {
  const given = Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
  const labels = [environment.HARRIER_AGENT_LABELS, flags.HARRIER_AGENT_LABELS].filter(Boolean).join(',');
  const settings = new SettingsReader({ ...environment, ...given, HARRIER_AGENT_LABELS: labels });
  for (const secret of ['HARRIER_JOIN_TOKEN', ...TRACING_SECRETS]) delete environment[secret];

  const dataDir = resolve(settings.text('HARRIER_AGENT_DATA_DIR', join('.harrier', 'agent')));
  const config: AgentConfig = {
    linkUrls: linkUrls(settings),
    joinToken: joinToken(settings),
    dataDir,
    launcherSocketPath: socketPath(settings, dataDir),
    name: settings.text('HARRIER_AGENT_NAME', hostname()),
    labels: settings.labels('HARRIER_AGENT_LABELS'),
    metricsListen: settings.address('HARRIER_AGENT_METRICS_LISTEN', { host: '127.0.0.1', port: 9465 }),
    metricsAdvertise:
      settings.text('HARRIER_AGENT_METRICS_ADVERTISE') === undefined
        ? undefined
        : settings.address('HARRIER_AGENT_METRICS_ADVERTISE', { host: '', port: 0 }),
    metricsToken: settings.secretFile('HARRIER_AGENT_METRICS_TOKEN_FILE'),
    metricsLabels: extraLabels(settings),
    tracing: readTracingSettings(settings),
    logFile: logFile(settings),
    slots: settings.integer('HARRIER_AGENT_SLOTS', defaultSlots(), { min: 1, max: MAX_AGENT_SLOTS }),
    ...readCapacitySettings(settings),
    maxTmpBytes: settings.integer('HARRIER_AGENT_MAX_TMP_BYTES', defaultMaxTmpBytes(totalmem()), BYTES),
    maxNetwork: settings.oneOf('HARRIER_AGENT_MAX_NETWORK', 'egress', NETWORK_CAPS),
    indexUrl: indexUrl(settings),
    allowUnsandboxed: settings.flag('HARRIER_ALLOW_UNSANDBOXED', false),
    logLevel: settings.oneOf('HARRIER_LOG_LEVEL', 'info', LOG_LEVELS),
    python: settings.text('HARRIER_AGENT_PYTHON'),
    spoolBytes: spoolBytes(settings),
    stopGraceMs: 1000 * settings.integer('HARRIER_AGENT_STOP_GRACE_S', 30, { min: 0, max: 86_400 }),
    stopLauncher: settings.flag('HARRIER_AGENT_STOP_LAUNCHER', false),
    startLauncher: settings.flag('HARRIER_AGENT_START_LAUNCHER', true),
    systemd: takeSystemdSettings(environment),
    docker: readDockerSettings(settings),
    slurm: readSlurmSettings(settings),
    environments: readEnvironmentSettings(settings),
    services: readServiceSettings(settings),
    searchPath: settings.text('PATH', '/usr/local/bin:/usr/bin:/bin'),
    instanceId: randomUUID(),
  };
  const failpoints = settings.text('HARRIER_FAILPOINTS');
  const wrong = failpoints === undefined ? undefined : armFailpoints(failpoints);
  if (wrong !== undefined) settings.problems.push(`HARRIER_FAILPOINTS: ${wrong}`);
  if (settings.problems.length > 0) throw new ConfigError(settings.problems);
  return config;
}

function defaultSlots(): number {
  return Math.min(MAX_AGENT_SLOTS, SLOTS_PER_CORE * availableParallelism());
}

function linkUrls(settings: SettingsReader): [string, ...string[]] {
  const [first, ...others] = (settings.text('HARRIER_SERVER_URL') ?? '').split(',').filter((url) => url.trim() !== '');
  if (first === undefined) {
    settings.problems.push(
      'HARRIER_SERVER_URL is missing: the address of the control plane, for example http://host:8000, or several with commas',
    );
    return [''];
  }
  return [linkUrl(settings, first.trim()), ...others.map((url) => linkUrl(settings, url.trim()))];
}

function linkUrl(settings: SettingsReader, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.search !== '') {
    settings.problems.push(`HARRIER_SERVER_URL must be http(s)://HOST[:PORT], not "${withoutCredentials(text)}"`);
    return '';
  }
  const scheme = url.protocol === 'https:' ? 'wss' : 'ws';
  return `${scheme}://${url.host}${url.pathname.replace(/\/+$/, '')}${LINK_PATH}`;
}

function indexUrl(settings: SettingsReader): string {
  const text = settings.text('HARRIER_AGENT_INDEX_URL', DEFAULT_INDEX_URL);
  if (/^https?:$/.test(URL.canParse(text) ? new URL(text).protocol : '')) return text;
  settings.problems.push(`HARRIER_AGENT_INDEX_URL must be an http(s) URL, not "${withoutCredentials(text)}"`);
  return DEFAULT_INDEX_URL;
}

function joinToken(settings: SettingsReader): string {
  if (settings.text('HARRIER_JOIN_TOKEN_FILE') === undefined) return settings.text('HARRIER_JOIN_TOKEN', '');
  return settings.secretFile('HARRIER_JOIN_TOKEN_FILE') ?? '';
}

function extraLabels(settings: SettingsReader): ExtraLabel[] {
  return settings.list('HARRIER_AGENT_METRICS_LABELS').flatMap((name) => {
    const label = EXTRA_LABELS.find((known) => known === name);
    if (label === undefined) {
      settings.problems.push(`HARRIER_AGENT_METRICS_LABELS must be of ${EXTRA_LABELS.join(', ')}, not "${name}"`);
    }
    return label ?? [];
  });
}

function logFile(settings: SettingsReader): LogFileSettings | undefined {
  const path = settings.text('HARRIER_AGENT_LOG_FILE');
  const maxBytes = settings.integer('HARRIER_AGENT_LOG_FILE_BYTES', 10 * MIB, { min: 64 * 1024, max: 1024 * GIB });
  const files = settings.integer('HARRIER_AGENT_LOG_FILES', 5, { min: 1, max: 1000 });
  return path === undefined ? undefined : { path: resolve(path), maxBytes, files };
}

function socketPath(settings: SettingsReader, dataDir: string): string {
  const path = join(dataDir, 'launcher.sock');
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    settings.problems.push(
      `HARRIER_AGENT_DATA_DIR is too long for the unix socket in it: "${path}" has more than ${MAX_SOCKET_PATH_BYTES} bytes`,
    );
  }
  return path;
}

/** `/tmp` is memory: half of it at most, and no more than the schema lets anyone ask for. */
export function defaultMaxTmpBytes(hostMemoryBytes: number): number {
  return Math.min(Math.floor(hostMemoryBytes / 2), 64 * GIB);
}

function spoolBytes(settings: SettingsReader): number | undefined {
  if (settings.text('HARRIER_SPOOL_BYTES') === undefined) return undefined;
  return settings.integer('HARRIER_SPOOL_BYTES', GIB, { min: 64 * 1024 * 1024, max: 1024 * GIB });
}
