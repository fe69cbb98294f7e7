import { resolve } from 'node:path';
import { Command } from 'commander';
import { readEnvironment } from '../config.ts';
import { CliError, EXIT } from '../failure.ts';
import { announce } from '../up/announce.ts';
import { startHost } from '../up/host.ts';
import { decideSandbox } from '../up/sandbox-check.ts';

interface Flags {
  listen?: string;
  grpcPort?: string;
  metricsListen?: string;
  agentMetricsListen?: string;
  dataDir?: string;
  config?: string;
  label?: string[];
  slots?: string;
  python?: string;
  logLevel?: string;
  allowUnsandboxed?: true;
  json?: true;
}

export function createUpCommand(): Command {
  return new Command('up')
    .description('Run a control plane and one agent on this machine, until Ctrl-C.')
    .option('--listen <host:port>', 'API (HARRIER_LISTEN, default 127.0.0.1:8000)')
    .option('--grpc-port <port>', 'second port for gRPC alone (HARRIER_GRPC_PORT, default none)')
    .option('--metrics-listen <host:port>', 'metrics of the control plane (default 127.0.0.1:9464)')
    .option('--agent-metrics-listen <host:port>', 'metrics of the agent (default 127.0.0.1:9465)')
    .option('--data-dir <path>', 'where everything is kept (HARRIER_DATA_DIR, default ./.harrier)')
    .option('--config <file>', 'modules file to load and follow (HARRIER_MODULES_FILE)')
    .option('--label <key=value>', 'label of the agent, can be repeated', (pair: string, before: string[] = []) => [
      ...before,
      pair,
    ])
    .option('--slots <number>', 'executions at once, at most')
    .option('--python <command>', 'interpreter of inline code (default python3)')
    .option('--log-level <level>', 'trace, debug, info, warn, error (HARRIER_LOG_LEVEL, default warn)')
    .option('--allow-unsandboxed', 'run code without a sandbox where bubblewrap is missing')
    .option('--json', 'one JSON line when everything is ready, and logs as JSON lines')
    .action(up);
}

async function up(flags: Flags): Promise<void> {
  const environment = readEnvironment();
  if (environment.tls) {
    throw new CliError(
      '`harrier up` serves this machine without TLS; unset HARRIER_TLS_CERT_FILE, or use `harrier server` and `harrier agent`',
    );
  }
  const allowed = flags.allowUnsandboxed === true || environment.allowUnsandboxed;
  const { unsandboxed } = await decideSandbox(allowed, environment.searchPath);
  const dataDirectory = flags.dataDir === undefined ? environment.dataDirectory : resolve(flags.dataDir);

  const host = await startHost({
    dataDirectory,
    serverFlags: flagsOf({
      listen: flags.listen,
      'grpc-port': flags.grpcPort,
      'metrics-listen': flags.metricsListen,
      config: flags.config,
    }),
    agentFlags: [
      ...flagsOf({ 'metrics-listen': flags.agentMetricsListen, slots: flags.slots, python: flags.python }),
      ...(flags.label ?? []).flatMap((label) => ['--label', label]),
      ...(unsandboxed ? ['--allow-unsandboxed'] : []),
    ],
    logLevel: flags.logLevel ?? environment.logLevel ?? 'warn',
    jsonLogs: flags.json === true,
    environment: environment.variables,
  });
  let interrupted = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      interrupted = true;
      host.stop();
    });
  }
  try {
    await announce(await host.ready, flags.json === true);
    await host.ended;
  } catch (error) {
    host.stop();
    await host.ended.catch(() => {});
    // Stopped while it started: that it is not up is no news.
    if (!interrupted) throw error;
    process.exitCode = EXIT.cancelled;
  }
}

function flagsOf(values: Record<string, string | undefined>): string[] {
  return Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, value]));
}
