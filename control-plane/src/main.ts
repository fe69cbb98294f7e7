import { continueLean, createLogger, formatHostPort, HarrierError, messageOf, Systemd, VERSION } from '@harrier/shared';
import { Command } from 'commander';
import type { AppOptions } from './app.ts';
import { readConfig } from './config.ts';

/** Exit codes of sysexits.h: wrong settings, and everything else that stops a start. */
const EXIT_CONFIG = 78;
const EXIT_FAILURE = 1;

/** A small young generation: 20 MiB less when idle, 50 MiB less after load, without a loss of throughput that shows. */
const NODE_FLAGS = ['--max-semi-space-size=8'];
/**
 * V8 lets a heap grow up to fourfold between two full collections when it may become 4 GiB, and twofold with this limit: half of the
 * memory with thousands of agents, for 2 % of a core. Whoever needs more says so in NODE_OPTIONS.
 */
const HEAP_LIMIT = '--max-old-space-size';
const HEAP_LIMIT_MIB = 2000;

const program = new Command('harrier server')
  .description('Run a control plane.')
  .version(VERSION)
  .option('--listen <host:port>', 'API and agent links (HARRIER_LISTEN, default 127.0.0.1:8000)')
  .option('--grpc-port <port>', 'second port for gRPC alone (HARRIER_GRPC_PORT, default none)')
  .option('--metrics-listen <host:port>', 'Prometheus metrics (HARRIER_METRICS_LISTEN, default 127.0.0.1:9464)')
  .option('--data-dir <path>', 'data directory (HARRIER_DATA_DIR, default ./.harrier)')
  .option('--config <file>', 'modules file to load and follow (HARRIER_MODULES_FILE)')
  .option('--task-classes <file>', 'task classes (HARRIER_TASK_CLASSES_FILE, default those of every control plane)')
  .option('--tls-cert <file>', 'PEM certificate chain (HARRIER_TLS_CERT_FILE)')
  .option('--tls-key <file>', 'PEM private key (HARRIER_TLS_KEY_FILE)')
  .option('--log-level <level>', 'trace, debug, info, warn, error (HARRIER_LOG_LEVEL, default info)')
  .action(async (flags: Record<string, string | undefined>) => {
    const result = readConfig({
      HARRIER_LISTEN: flags.listen,
      HARRIER_GRPC_PORT: flags.grpcPort,
      HARRIER_METRICS_LISTEN: flags.metricsListen,
      HARRIER_DATA_DIR: flags.dataDir,
      HARRIER_MODULES_FILE: flags.config,
      HARRIER_TASK_CLASSES_FILE: flags.taskClasses,
      HARRIER_TLS_CERT_FILE: flags.tlsCert,
      HARRIER_TLS_KEY_FILE: flags.tlsKey,
      HARRIER_LOG_LEVEL: flags.logLevel,
    });
    if ('problems' in result) {
      process.stderr.write(`harrier server: ${result.problems.join('\nharrier server: ')}\n`);
      process.exit(EXIT_CONFIG);
    }
    const hasHeapLimit = result.environment.NODE_OPTIONS?.includes(HEAP_LIMIT) === true;
    continueLean({
      dataDirectory: result.config.dataDirectory,
      later: import.meta.resolve('./app.ts'),
      nodeFlags: hasHeapLimit ? NODE_FLAGS : [...NODE_FLAGS, `${HEAP_LIMIT}=${HEAP_LIMIT_MIB}`],
      environment: result.environment,
    });
    await serve(result.config);
  });

async function serve(config: AppOptions['config']): Promise<void> {
  const { startApp } = await import('./app.ts');
  const logger = createLogger({ name: 'control-plane', level: config.logLevel });
  const stopped = Promise.withResolvers<number>();
  // A defect in one call must be seen, and must not end the others.
  process.on('unhandledRejection', (error) => logger.error({ err: error }, 'a rejection was not handled'));
  const app = await startApp({
    config,
    logger,
    onFatal: (reason) => {
      logger.fatal({ reason }, 'the control plane cannot go on');
      stopped.resolve(EXIT_FAILURE);
    },
  }).catch((error: unknown) => {
    if (error instanceof HarrierError) process.stderr.write(`harrier server: ${error.message}\n`);
    else logger.fatal({ err: error }, messageOf(error));
    process.exit(EXIT_FAILURE);
  });
  // One line for whoever started it: where it really listens, also when the port was chosen by the system.
  process.stdout.write(
    `${JSON.stringify({
      listen: formatHostPort({ host: app.address.address, port: app.address.port }),
      metrics: formatHostPort(app.metricsAddress),
      ...(app.grpcAddress === undefined
        ? {}
        : { grpc: formatHostPort({ host: app.grpcAddress.address, port: app.grpcAddress.port }) }),
    })}\n`,
  );
  const systemd = new Systemd(config.systemd, logger);
  systemd.ready(`Serving on ${formatHostPort({ host: app.address.address, port: app.address.port })}`);
  // The event loop turns: more is not asked of it, since whatever else is wrong a restart would not help.
  systemd.watch(() => undefined);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      logger.info({ signal }, 'stopping');
      stopped.resolve(0);
    });
  }
  const exitCode = await stopped.promise;
  systemd.stopping();
  await app.stop();
  process.exit(exitCode);
}

if (import.meta.main) await program.parseAsync();
