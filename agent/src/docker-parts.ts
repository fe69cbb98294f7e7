import type { Logger } from '@harrier/shared';
import { ContainerBudget } from './docker/container-budget.ts';
import { DockerEngine } from './docker/engine.ts';
import { ImagePolicy } from './docker/image-policy.ts';
import { Images } from './docker/images.ts';
import type { DockerSettings } from './docker-settings.ts';
import { ContainerPool } from './environment/container-pool.ts';
import { DockerEnvironment } from './environment/docker-environment.ts';
import { whyNoRoomForImages } from './environment/image-room.ts';
import type { ZygoteHost } from './environment/warm-container.ts';
import type { ContainerGuard } from './executor/container-guard.ts';
import { SCRIPT_RUNNERS } from './executor/container-program.ts';
import { DockerExecutor, type DockerExecutorOptions } from './executor/docker-executor.ts';
import type { ExecutorEvents } from './executor/executor.ts';
import type { HardwareFacts, Probe } from './hardware/probe.ts';

export interface DockerPartsOptions {
  settings: DockerSettings;
  dataDir: string;
  /** The most that a container may use. */
  memoryBytes: number;
  tmpBytes: number;
  /** Bytes that stay free on the engine's disk. */
  minFreeBytes: number;
  host: ZygoteHost;
  guard: ContainerGuard;
  events: ExecutorEvents;
  onRefused: DockerExecutorOptions['onRefused'];
  /** The engine has come or gone. */
  onSupportChange: () => void;
  logger: Logger;
}

/** Everything of an agent that has to do with Docker. */
export interface DockerParts {
  engine: DockerEngine;
  environment: DockerEnvironment;
  executor: DockerExecutor;
  pool: ContainerPool;
  /** Containers that run now. */
  containers(): number;
  /** Resolves when it is known whether there is an engine, and what a former agent has left. */
  open(): Promise<void>;
  close(): Promise<void>;
}

const ENGINE_EVERY_MS = 10_000;

/** What the engine is, as far as callers may want to know. */
export function containerEngineProbe(engine: Pick<DockerEngine, 'unavailable' | 'facts'>): Probe {
  return {
    everyMs: ENGINE_EVERY_MS,
    read: async () => {
      if (engine.unavailable() !== undefined) return { containerEngine: undefined } as HardwareFacts;
      const { version, runtimes, gpus } = engine.facts;
      return { containerEngine: { version, runtimes: [...runtimes], gpus: gpus !== undefined } };
    },
  };
}

export function createDockerParts(options: DockerPartsOptions): DockerParts {
  const { settings, dataDir, memoryBytes, tmpBytes, host, guard, events, logger } = options;
  const engine = new DockerEngine({ socketPath: settings.socketPath, logger });
  const policy = new ImagePolicy(settings.allowedImages);
  const { credentialsPath } = settings;
  const whyNoRoom = (engineDir: string) => whyNoRoomForImages(engineDir, options.minFreeBytes);
  const images = new Images({ engine, policy, credentialsPath, whyNoRoom, logger });
  const budget = new ContainerBudget(settings.maxContainers);
  const idleMs = settings.containerIdleMs;
  const pool = new ContainerPool({ engine, budget, host, dataDir, idleMs, memoryBytes, tmpBytes, logger });
  const { runnerImages } = settings;
  const environment = new DockerEnvironment({ engine, images, policy, pool, runnerImages });
  const executor = new DockerExecutor({
    engine,
    images,
    budget,
    dataDir,
    runners: SCRIPT_RUNNERS,
    guard,
    events,
    onRefused: options.onRefused,
    logger,
  });
  engine.onChange(() => options.onSupportChange());
  return {
    engine,
    environment,
    executor,
    pool,
    containers: () => budget.used,
    open: async () => {
      await engine.open();
      executor.open();
    },
    close: async () => {
      await pool.close();
      executor.close();
      engine.close();
    },
  };
}
