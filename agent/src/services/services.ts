import { FileWatcher, HarrierError, type Logger } from '@harrier/shared';
import type { ManagedServices } from '@harrier/shared/gen/link';
import type { DockerEngine } from '../docker/engine.ts';
import { ImagePolicy } from '../docker/image-policy.ts';
import { Images } from '../docker/images.ts';
import type { EngineCall } from './service-engine.ts';
import type { ServiceEvents } from './service-keeper.ts';
import { ServiceManager } from './service-manager.ts';
import { ToldServices } from './told-services.ts';

export interface ServiceSettings {
  /** Absolute path of the services file; undefined: this agent keeps nothing up. */
  path: string | undefined;
  /** Whose overrides are in force. */
  environment: string;
}

export interface ServicesOptions {
  settings: ServiceSettings;
  engine: DockerEngine;
  /** Socket of the engine. */
  socketPath: string;
  /** A `config.json` of Docker with `auths`; undefined: no credentials. */
  credentialsPath: string | undefined;
  dataDir: string;
  /** Whether the settings name this GPU as one that executions get, or any where it is `all`. */
  isGivenGpu: (uuid: string) => boolean;
  /** Whether executions get this GPU, a part of it, or what it is a part of; undefined: the driver has not told yet. */
  isSharedGpu: (uuid: string) => boolean | undefined;
  events: ServiceEvents & { onEngineCall: (call: EngineCall) => void };
  /** What is told of services may have changed. */
  onChange: () => void;
  logger: Logger;
}

/** The services of an agent. */
export interface Services {
  /** All of them, and takes them as told. */
  tell(): ManagedServices;
  /** All of them when they differ from what was told last. */
  tellChange(): ManagedServices | undefined;
  /** By name, whether it runs. */
  running(): ReadonlyMap<string, boolean>;
  /**
   * Keeps up what the services file declares, and follows the file: a change that is not right leaves everything as it is,
   * and its problems are logged. Without a file nothing is done, also to services that a former agent has started.
   * Nothing here waits for the driver of the GPUs: a service that wants some is started when they are known to be its own.
   * @throws HarrierError failed_precondition with every problem, when the file is not right at the start
   */
  open(): Promise<void>;
  /** What `isSharedGpu` answers may have changed. */
  gpusChanged(): void;
  /** Before the engine is closed. */
  close(): Promise<void>;
}

export function createServices(options: ServicesOptions): Services {
  let followed: FollowedServices | undefined;
  const told = new ToldServices(() => followed?.manager.reports() ?? [], options.onChange);
  return {
    tell: () => told.tell(),
    tellChange: () => told.tellChange(),
    running: () => followed?.manager.running() ?? new Map(),
    open: async () => {
      const { path } = options.settings;
      if (path !== undefined) followed = await follow(path, { ...options, onChange: () => told.changed() });
    },
    gpusChanged: () => followed?.manager.gpusChanged(),
    close: async () => {
      await followed?.watcher.close();
      await followed?.manager.close();
    },
  };
}

interface FollowedServices {
  manager: ServiceManager;
  watcher: FileWatcher;
}

async function follow(path: string, options: ServicesOptions): Promise<FollowedServices> {
  const { settings, engine, socketPath, credentialsPath, dataDir, isGivenGpu, isSharedGpu, events, onChange, logger } =
    options;
  const { environment } = settings;
  // Loaded only where there is such a file: the parser takes some MiB.
  const { loadServicesFile } = await import('./load-services-file.ts');
  const { formatProblem } = await import('@harrier/shared/yaml-file/problem');
  const load = () => loadServicesFile({ path, environment, socketPath, isGivenGpu });
  // The operator has written the images into the file: what callers may use is another matter.
  const images = new Images({ engine, policy: new ImagePolicy(['*']), credentialsPath, logger });
  const manager = new ServiceManager({ engine, images, dataDir, environment, isSharedGpu, events, onChange, logger });
  let seen = '';

  async function reload(): Promise<void> {
    const file = await load();
    const content = JSON.stringify(file);
    if (content === seen) return;
    seen = content;
    for (const problem of file.problems) logger.error({ file: path }, formatProblem(path, problem));
    if (file.problems.length > 0) {
      logger.error({ file: path }, 'the services file was not taken; what was before stays');
      return;
    }
    logger.info({ file: path, environment, services: file.services.length }, 'services file is in force');
    manager.change(file.services, file.stopWithAgent);
  }

  const watcher = new FileWatcher({ onChange: reload, logger });
  watcher.watch([path]);
  const first = await load();
  if (first.problems.length > 0) {
    await watcher.close();
    const lines = first.problems.map((problem) => formatProblem(path, problem)).join('\n  ');
    throw new HarrierError('failed_precondition', `the services file is not right:\n  ${lines}`);
  }
  seen = JSON.stringify(first);
  logger.info({ file: path, environment, services: first.services.length }, 'services file is in force');
  manager.start(first.services, first.stopWithAgent);
  return { manager, watcher };
}
