import { chmodSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { ReleasePlace } from '../docker/container-budget.ts';
import { LABEL } from '../docker/container-list.ts';
import { containerOptions } from '../docker/container-policy.ts';
import type { ContainerRun } from '../docker/container-run.ts';
import { type DockerEngine, EngineUnavailableError, engineMessage } from '../docker/engine.ts';
import type { HeldImage } from '../docker/images.ts';
import type { ExpectMessage } from '../launcher/messages.ts';
import { untilAborted } from '../tasks/until-aborted.ts';
import { EnvironmentError } from './environment.ts';

/** What the launcher does for a container's interpreter. */
export interface ZygoteHost {
  /** Listens on a socket for one interpreter. @returns false when no launcher is connected */
  expectZygote(expected: Omit<ExpectMessage, 'type'>): boolean;
  /** Resolves when no launcher is being replaced by another one. */
  readonly replaced: Promise<void>;
  /** Ends an interpreter as soon as no call runs in it. */
  retire(tenant: string, key: string): void;
}

/** From the start of a container to an interpreter that has imported everything. */
const ATTACH_TIMEOUT_MS = 120_000;
/** For all calls of the container together; each call has its own bound. */
const PROCESSES = 8192;
const LOG_BYTES = 1024 * 1024;
/** Shown of what a container wrote that did not come up. */
const SHOWN_CHARS = 2000;
const RUNTIME = fileURLToPath(new URL('../../runtime', import.meta.url)).replace(/\/$/, '');
const RUNTIME_TARGET = '/harrier';
const SOCKET_TARGET = '/harrier-socket';
const SOCKET = 'zygote.sock';

export interface WarmContainerOptions {
  engine: DockerEngine;
  host: ZygoteHost;
  /** Directory of the agent. */
  dataDir: string;
  /** Memory of a container: of all calls in it together. */
  memoryBytes: number;
  /** `/tmp` of a container; each call has one of its own besides. */
  tmpBytes: number;
}

/**
 * A warm container:
 *
 *   starting ──attached──▶ ready ──idle too long, or its place is needed──▶ leaving ──removed──▶ (gone)
 *      └────────────failed, detached────────────────────────────────────────▲
 */
type WarmState = 'starting' | 'ready' | 'leaving';

export interface WarmContainer {
  readonly tenant: string;
  /** Tells this container from every other one, also of the same image. */
  readonly key: string;
  readonly run: ContainerRun;
  readonly directory: string;
  readonly preload: readonly string[];
  /** Processors for all calls in it together; 0: all of the host. */
  readonly cpu: number;
  /** Cards of the one call that it is for; none: it is for many calls. */
  readonly gpuUuids: readonly string[];
  readonly attached: PromiseWithResolvers<void>;
  /** The engine has no container of it, and starts none any more. */
  readonly gone: PromiseWithResolvers<void>;
  state: WarmState;
  users: number;
  idleTimer: NodeJS.Timeout | undefined;
  release: ReleasePlace;
}

/**
 * Starts it; resolves when its interpreter is the launcher's.
 * @throws EnvironmentError, EngineUnavailableError, the signal's reason when aborted; it is to be removed then
 */
export async function launchWarmContainer(
  warm: WarmContainer,
  image: HeldImage,
  { host, engine, dataDir, memoryBytes, tmpBytes }: WarmContainerOptions,
  signal: AbortSignal,
): Promise<void> {
  mkdirSync(warm.directory, { recursive: true });
  // Above it only the agent may enter; in the container another user must.
  chmodSync(dirname(warm.directory), 0o700);
  chmodSync(warm.directory, 0o755);
  const { tenant, key, preload, cpu, gpuUuids } = warm;
  const socket = join(warm.directory, SOCKET);
  if (!host.expectZygote({ tenant, key, socket, variables: {}, preload })) {
    throw new EnvironmentError(Code.ENVIRONMENT_FAILED, "the agent's launcher is not running");
  }
  const options = containerOptions(
    {
      imageId: image.id,
      entrypoint: ['python3', '-I', '-B', `${RUNTIME_TARGET}/zygote.py`],
      command: ['container', `${SOCKET_TARGET}/${SOCKET}`],
      env: {},
      labels: { [LABEL.agent]: dataDir, [LABEL.role]: 'pool', [LABEL.tenant]: tenant, [LABEL.key]: key },
      limits: { memoryBytes, cpu, processes: PROCESSES, tmpBytes, logBytes: LOG_BYTES },
      volumes: image.volumes,
      mounts: [
        { source: RUNTIME, target: RUNTIME_TARGET },
        { source: warm.directory, target: SOCKET_TARGET },
      ],
      profile: 'zygote',
      stdin: false,
      gpuUuids,
    },
    engine.facts,
  );
  let written = '';
  const onOutput = (_: string, data: Buffer): void => {
    written = (written + data.toString('utf8')).slice(-SHOWN_CHARS);
  };
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('it took too long')), ATTACH_TIMEOUT_MS);
  try {
    const running = await warm.run.start(options, undefined, onOutput, signal);
    const ended = running.ended.then(() => endedEarly(warm.run));
    await untilAborted(Promise.race([warm.attached.promise, ended, late.promise]), signal);
  } catch (error) {
    const gone = engine.unavailable();
    if (gone !== undefined) throw new EngineUnavailableError(gone, { cause: error });
    signal.throwIfAborted();
    const said = written.trim() === '' ? '' : `:\n${written.trim()}`;
    const message = `no Python 3.9 or newer comes up in the image ${image.lock}: ${engineMessage(error)}${said}`;
    throw new EnvironmentError(Code.ENVIRONMENT_FAILED, message, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

async function endedEarly(run: ContainerRun): Promise<never> {
  const { exitCode } = await run.exit();
  throw new Error(`it ended with exit code ${exitCode}`);
}
