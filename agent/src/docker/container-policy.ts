import { readFileSync } from 'node:fs';
import type Docker from 'dockerode';

type CreateOptions = Docker.ContainerCreateOptions;

/** A directory or socket directory of the agent that a container sees, read-only. */
export interface ReadOnlyMount {
  source: string;
  target: string;
}

/** What a container may use. */
export interface ContainerLimits {
  memoryBytes: number;
  /** Processors; 0: as many as there are. */
  cpu: number;
  /** Processes and threads at once. */
  processes: number;
  /** Size of `/tmp`, and of each directory that the image declares as a volume. */
  tmpBytes: number;
  /** Most bytes that the engine keeps of what the container writes. */
  logBytes: number;
}

export interface ContainerSpec {
  /** Id of the image, so that nobody can put another one under its name meanwhile. */
  imageId: string;
  /** Replaces the image's own command; empty: the image's. */
  command: readonly string[];
  /** Replaces the image's entry point; undefined: the image's. */
  entrypoint?: readonly string[];
  env: Readonly<Record<string, string>>;
  labels: Readonly<Record<string, string>>;
  limits: ContainerLimits;
  /** Directories that the image declares as volumes: without a bound they would be on the host's disk. */
  volumes: readonly string[];
  /** Files of the agent itself; nothing that a caller has named. */
  mounts: readonly ReadOnlyMount[];
  /** `call`: runs a program. `zygote`: also makes namespaces inside its own, to confine each call in them. */
  profile: 'call' | 'zygote';
  /** Its standard input is written to. */
  stdin: boolean;
  /** UUIDs of the cards that it sees. Absent: none. */
  gpuUuids?: readonly string[];
}

/** What the engine is, as far as it matters here. */
export interface EngineTraits {
  cpus: number;
  appArmor: boolean;
  /** How it gives GPUs to containers; absent: it cannot. */
  gpus?: 'nvidia' | 'cdi' | undefined;
}

/** Why a container gets no GPUs. */
export const NO_GPUS =
  'the Docker engine gives containers no GPUs: it has neither the NVIDIA runtime nor devices of the Container Device Interface';
/** User and group of every container, whatever its image says. */
export const CONTAINER_USER = '1000:1000';
/** The engine refuses less. */
const MIN_MEMORY_BYTES = 6 * 1024 * 1024;
const MIN_LOG_BYTES = 1024 * 1024;
const NANO = 1e9;
const MIN_FILES = 1024;
const BYTES_PER_FILE = 4096;

const PROFILES = {
  call: profile('seccomp-call.json'),
  zygote: profile('seccomp-zygote.json'),
};

/**
 * What the engine is told for every container of this agent. There is no way round it: no network, a read-only root, an
 * ordinary user without capabilities, a system call filter, no devices, no files of the host but the agent's own.
 */
export function containerOptions(spec: ContainerSpec, engine: EngineTraits): CreateOptions {
  const { limits, gpuUuids = [] } = spec;
  const memoryBytes = memoryBound(limits.memoryBytes);
  return {
    Image: spec.imageId,
    ...(spec.command.length === 0 ? {} : { Cmd: [...spec.command] }),
    ...(spec.entrypoint === undefined ? {} : { Entrypoint: [...spec.entrypoint] }),
    Env: Object.entries({ HOME: '/tmp', TMPDIR: '/tmp', ...spec.env, ...gpuEnv(gpuUuids) }).map(
      ([name, value]) => `${name}=${value}`,
    ),
    Labels: { ...spec.labels },
    User: CONTAINER_USER,
    Tty: false,
    OpenStdin: spec.stdin,
    StdinOnce: spec.stdin,
    AttachStdin: spec.stdin,
    AttachStdout: true,
    AttachStderr: true,
    NetworkDisabled: true,
    Healthcheck: { Test: ['NONE'] },
    HostConfig: {
      NetworkMode: 'none',
      ReadonlyRootfs: true,
      Privileged: false,
      CapDrop: ['ALL'],
      SecurityOpt: securityOptions(spec.profile, engine),
      // A PID namespace can have a /proc of its own only where nothing of the outer one is hidden.
      ...(spec.profile === 'zygote' ? { MaskedPaths: [], ReadonlyPaths: [] } : {}),
      IpcMode: 'private',
      // The image's program is not the first process then: orphans are waited for, and SIGTERM ends it by default.
      Init: spec.profile === 'call',
      Tmpfs: { '/tmp': `exec,${tmpfsOptions(limits.tmpBytes)}`, '/dev/shm': `noexec,${tmpfsOptions(limits.tmpBytes)}` },
      Mounts: [
        ...spec.volumes.filter((path) => path !== '/tmp').map((path) => volumeMount(path, limits.tmpBytes)),
        ...spec.mounts.map(({ source, target }) => bindMount(source, target)),
      ],
      Memory: memoryBytes,
      // Of memory and swap together: no swap.
      MemorySwap: memoryBytes,
      PidsLimit: limits.processes,
      // The engine refuses more than there are.
      ...(limits.cpu > 0 && limits.cpu < engine.cpus ? { NanoCpus: Math.max(1, Math.round(limits.cpu * NANO)) } : {}),
      ...(gpuUuids.length === 0 ? {} : { DeviceRequests: [deviceRequest(gpuUuids, engine.gpus)] }),
      Ulimits: [{ Name: 'core', Soft: 0, Hard: 0 }],
      LogConfig: {
        // Keeps bytes as they are; `json-file` does not. With two files, the newest `max-size` bytes are never dropped.
        Type: 'local',
        Config: { 'max-size': `${Math.max(MIN_LOG_BYTES, limits.logBytes)}b`, 'max-file': '2', compress: 'false' },
      },
      RestartPolicy: { Name: 'no' },
      AutoRemove: false,
    },
  };
}

/**
 * Where NVIDIA's runtime is the engine's default one, a variable of the image or of a caller would give every card to the
 * container.
 */
function gpuEnv(uuids: readonly string[]): Record<string, string> {
  if (uuids.length === 0) return { NVIDIA_VISIBLE_DEVICES: 'void' };
  const names = uuids.join(',');
  const capabilities = 'compute,utility';
  return {
    CUDA_VISIBLE_DEVICES: names,
    NVIDIA_VISIBLE_DEVICES: names,
    NVIDIA_DRIVER_CAPABILITIES: capabilities,
  };
}

/** As `docker run --gpus device=…` and `--device nvidia.com/gpu=…` make it. */
function deviceRequest(uuids: readonly string[], how: EngineTraits['gpus']): Docker.DeviceRequest {
  if (how === 'cdi') return { Driver: 'cdi', DeviceIDs: uuids.map((uuid) => `nvidia.com/gpu=${uuid}`) };
  return { Driver: 'nvidia', DeviceIDs: [...uuids], Capabilities: [['gpu', 'compute', 'utility']] };
}

/** The memory that a container has when that much is asked for. */
export function memoryBound(memoryBytes: number): number {
  return Math.max(MIN_MEMORY_BYTES, memoryBytes);
}

function securityOptions(kind: keyof typeof PROFILES, { appArmor }: EngineTraits): string[] {
  const options = ['no-new-privileges', `seccomp=${PROFILES[kind]}`];
  // The engine's AppArmor profile forbids every mount, also those inside a user namespace of the container's own.
  return kind === 'zygote' && appArmor ? [...options, 'apparmor=unconfined'] : options;
}

/** As in a sandbox (`namespaces.py`): files are bounded too, since empty ones take memory as well. */
function tmpfsOptions(sizeBytes: number): string {
  const files = Math.max(MIN_FILES, Math.floor(sizeBytes / BYTES_PER_FILE));
  return `rw,nosuid,nodev,mode=1777,size=${sizeBytes},nr_inodes=${files}`;
}

function volumeMount(target: string, sizeBytes: number): Docker.MountSettings {
  return { Type: 'tmpfs', Source: '', Target: target, TmpfsOptions: { SizeBytes: sizeBytes, Mode: 0o1777 } };
}

function bindMount(source: string, target: string): Docker.MountSettings {
  return { Type: 'bind', Source: source, Target: target, ReadOnly: true, BindOptions: { Propagation: 'rprivate' } };
}

/** The engine takes a profile as text in one line. */
function profile(file: string): string {
  return JSON.stringify(JSON.parse(readFileSync(new URL(file, import.meta.url), 'utf8')));
}
