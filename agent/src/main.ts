import { continueLean, HarrierError, messageOf, VERSION } from '@harrier/shared';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { type AgentConfig, ConfigError, readConfig, startEnvironment } from './config.ts';
import { createAgentLogger } from './log/agent-logger.ts';

/** Exit codes of sysexits.h where a restart does not help: EX_NOPERM, EX_CONFIG. */
const EXIT = { stopped: 0, failed: 1, unwanted: 77, settings: 78 } as const;

/** An agent shares its host with the work: some per cent of processor time under full load for 30 MiB less. */
const NODE_FLAGS = ['--max-semi-space-size=1'];
/** Gives memory back to the system after a burst of output: 107 MiB instead of 180 MiB after 256 MiB of it. */
const ALLOCATOR = { MALLOC_TRIM_THRESHOLD_: String(128 * 1024) };

interface Flags {
  serverUrl?: string;
  joinTokenFile?: string;
  dataDir?: string;
  name?: string;
  label?: string[];
  metricsListen?: string;
  slots?: string;
  cpus?: string;
  memory?: string;
  gpus?: string;
  maxMemoryBytes?: string;
  maxTmpBytes?: string;
  maxNetwork?: string;
  indexUrl?: string;
  python?: string;
  services?: string;
  environment?: string;
  slurmDir?: string;
  slurmPartition?: string;
  slurmMaxJobs?: string;
  slurmPython?: string;
  spoolBytes?: string;
  stopGrace?: string;
  stopLauncher?: true;
  allowUnsandboxed?: true;
  logLevel?: string;
  logFile?: string;
  metricsAdvertise?: string;
}

/**
 * Runs an agent until it is stopped by SIGTERM or SIGINT (a second one stops running work at once), or is not wanted.
 * @param argv the flags, without program and script
 * @returns the exit code: 0 stopped, 1 failed, 78 wrong settings, 77 the control plane does not want this agent
 */
export async function runAgent(argv: readonly string[]): Promise<number> {
  try {
    const environment = startEnvironment();
    const config = readConfig(settingsOf(parseFlags(argv)));
    if (import.meta.main) {
      const later = import.meta.resolve('./app.ts');
      continueLean({ dataDirectory: config.dataDir, later, nodeFlags: NODE_FLAGS, variables: ALLOCATOR, environment });
    }
    return await runWithLog(config);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.stopped : EXIT.settings;
    if (error instanceof ConfigError) return fail(EXIT.settings, error.problems.join('\nharrier agent: '));
    if (error instanceof HarrierError) return fail(EXIT.failed, error.message);
    return fail(EXIT.failed, error instanceof Error ? (error.stack ?? error.message) : messageOf(error));
  }
}

/** What the sandboxes' users enter and read must be open to them, whatever the caller's shell says; what is secret has modes of its own. */
const UMASK = 0o022;

async function runWithLog(config: AgentConfig): Promise<number> {
  process.umask(UMASK);
  const { logger, close } = createAgentLogger(config.logLevel, config.logFile);
  try {
    const { startAgent } = await import('./app.ts');
    const agent = await startAgent(config, logger);
    const stop = (): void => agent.stop();
    process.on('SIGTERM', stop).on('SIGINT', stop);
    const reason = await agent.ended;
    process.off('SIGTERM', stop).off('SIGINT', stop);
    if (reason === undefined) return EXIT.stopped;
    return fail(EXIT.unwanted, reason);
  } finally {
    await close();
  }
}

function fail(code: number, text: string): number {
  process.stderr.write(`harrier agent: ${text}\n`);
  return code;
}

function parseFlags(argv: readonly string[]): Flags {
  const program = new Command('harrier agent')
    .description('Runs executions on this host for a Harrier control plane.')
    .version(VERSION)
    .option(
      '--server-url <url>',
      'control plane, for example http://host:8000, or several with commas (HARRIER_SERVER_URL)',
    )
    .option(
      '--join-token-file <file>',
      'file with the token for the first join (HARRIER_JOIN_TOKEN_FILE, HARRIER_JOIN_TOKEN)',
    )
    .option(
      '--data-dir <directory>',
      'identity, spool and launcher socket (HARRIER_AGENT_DATA_DIR, default .harrier/agent)',
    )
    .option('--name <name>', 'name for people (HARRIER_AGENT_NAME, default the host name)')
    .option('--label <key=value>', 'label for selectors, can be repeated (HARRIER_AGENT_LABELS)', addLabel)
    .option('--metrics-listen <host:port>', 'metrics and health (HARRIER_AGENT_METRICS_LISTEN, default 127.0.0.1:9465)')
    .option('--slots <number>', 'executions at once, at most (HARRIER_AGENT_SLOTS, default 32 per core)')
    .option(
      '--cpus <number>',
      "processors that executions can have altogether (HARRIER_AGENT_CPUS, default the host's)",
    )
    .option(
      '--memory <size>',
      "memory that executions can have altogether, for example 64GiB (HARRIER_AGENT_MEMORY, default the host's)",
    )
    .option('--gpus <all|none|uuid,…>', 'cards of NVIDIA that executions get (HARRIER_AGENT_GPUS, default all)')
    .option(
      '--max-memory-bytes <bytes>',
      "memory an execution may ask for, at most (HARRIER_AGENT_MAX_MEMORY_BYTES, default the host's memory)",
    )
    .option(
      '--max-tmp-bytes <bytes>',
      "/tmp an execution may ask for, at most (HARRIER_AGENT_MAX_TMP_BYTES, default half the host's memory, up to 64 GiB)",
    )
    .option(
      '--max-network <none|index|egress|full>',
      'network access an execution may ask for, at most (HARRIER_AGENT_MAX_NETWORK, default egress)',
    )
    .option(
      '--index-url <url>',
      'package index of environments that name none (HARRIER_AGENT_INDEX_URL, default https://pypi.org/simple)',
    )
    .option('--python <command>', 'interpreter of inline code (HARRIER_AGENT_PYTHON, default python3)')
    .option('--services <file>', 'containers to keep up, see docs/services.md (HARRIER_SERVICES_CONFIG)')
    .option('--environment <name>', 'whose overrides of the services are in force (HARRIER_ENVIRONMENT)')
    .option(
      '--slurm-dir <directory>',
      'submits jobs to Slurm: a directory that the nodes have under the same path (HARRIER_AGENT_SLURM_DIR)',
    )
    .option('--slurm-partition <name>', 'where a request names none (HARRIER_AGENT_SLURM_PARTITION)')
    .option('--slurm-max-jobs <number>', 'jobs at once, at most (HARRIER_AGENT_SLURM_MAX_JOBS, default 1000)')
    .option('--slurm-python <command>', 'interpreter on the nodes (HARRIER_AGENT_SLURM_PYTHON, default python3)')
    .option('--spool-bytes <bytes>', 'output and results kept until they are stored, at most (HARRIER_SPOOL_BYTES)')
    .option(
      '--stop-grace <seconds>',
      'how long running work may go on at a stop (HARRIER_AGENT_STOP_GRACE_S, default 30)',
    )
    .option('--stop-launcher', 'the launcher and what it runs end with the agent (HARRIER_AGENT_STOP_LAUNCHER)')
    .option('--allow-unsandboxed', 'run code without a sandbox where none can be built (HARRIER_ALLOW_UNSANDBOXED)')
    .option('--log-level <level>', 'trace, debug, info, warn, error, fatal or silent (HARRIER_LOG_LEVEL, default info)')
    .option('--log-file <file>', 'the log goes there too, rotated by size (HARRIER_AGENT_LOG_FILE)')
    .option(
      '--metrics-advertise <host:port>',
      'where Prometheus finds the metrics from outside (HARRIER_AGENT_METRICS_ADVERTISE)',
    )
    .allowExcessArguments(false)
    .exitOverride();
  return program.parse([...argv], { from: 'user' }).opts<Flags>();
}

function addLabel(text: string, before: string[] | undefined): string[] {
  if (!text.includes('=')) throw new InvalidArgumentError('write KEY=VALUE');
  return [...(before ?? []), text];
}

/** Flags under the names of their variables. */
function settingsOf(flags: Flags): Record<string, string | undefined> {
  return {
    HARRIER_SERVER_URL: flags.serverUrl,
    HARRIER_JOIN_TOKEN_FILE: flags.joinTokenFile,
    HARRIER_AGENT_DATA_DIR: flags.dataDir,
    HARRIER_AGENT_NAME: flags.name,
    HARRIER_AGENT_LABELS: flags.label?.join(','),
    HARRIER_AGENT_METRICS_LISTEN: flags.metricsListen,
    HARRIER_AGENT_SLOTS: flags.slots,
    HARRIER_AGENT_CPUS: flags.cpus,
    HARRIER_AGENT_MEMORY: flags.memory,
    HARRIER_AGENT_GPUS: flags.gpus,
    HARRIER_AGENT_MAX_MEMORY_BYTES: flags.maxMemoryBytes,
    HARRIER_AGENT_MAX_TMP_BYTES: flags.maxTmpBytes,
    HARRIER_AGENT_MAX_NETWORK: flags.maxNetwork,
    HARRIER_AGENT_INDEX_URL: flags.indexUrl,
    HARRIER_AGENT_PYTHON: flags.python,
    HARRIER_SERVICES_CONFIG: flags.services,
    HARRIER_ENVIRONMENT: flags.environment,
    HARRIER_AGENT_SLURM_DIR: flags.slurmDir,
    HARRIER_AGENT_SLURM_PARTITION: flags.slurmPartition,
    HARRIER_AGENT_SLURM_MAX_JOBS: flags.slurmMaxJobs,
    HARRIER_AGENT_SLURM_PYTHON: flags.slurmPython,
    HARRIER_SPOOL_BYTES: flags.spoolBytes,
    HARRIER_AGENT_STOP_GRACE_S: flags.stopGrace,
    HARRIER_AGENT_STOP_LAUNCHER: flags.stopLauncher && 'true',
    HARRIER_ALLOW_UNSANDBOXED: flags.allowUnsandboxed && 'true',
    HARRIER_LOG_LEVEL: flags.logLevel,
    HARRIER_AGENT_LOG_FILE: flags.logFile,
    HARRIER_AGENT_METRICS_ADVERTISE: flags.metricsAdvertise,
  };
}

if (import.meta.main) process.exitCode = await runAgent(process.argv.slice(2));
