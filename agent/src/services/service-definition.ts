import { createHash } from 'node:crypto';
import type { PullRule } from '../docker/images.ts';

/** A container that is to be kept up, as `services.yaml` and the overrides of the environment in force have it. */
export interface ServiceDefinition {
  readonly name: string;
  /** A reference, as it was written. */
  readonly image: string;
  readonly pull: PullRule;
  /** Replaces the image's command; empty: the image's. */
  readonly command: readonly string[];
  /** Replaces the image's entry point; empty: the image's. */
  readonly entrypoint: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** `USER[:GROUP]`; empty: the image's. */
  readonly user: string;
  /** Empty: the image's. */
  readonly workingDir: string;
  readonly volumes: readonly ServiceVolume[];
  readonly ports: readonly ServicePort[];
  /** The first is the one that the container starts with; none: the engine's default. */
  readonly networks: readonly string[];
  readonly limits: ServiceLimits;
  /** UUIDs of the host's GPUs; `all` alone: every one. */
  readonly gpus: readonly string[];
  readonly health: HealthCheck | undefined;
  readonly restart: RestartRule;
  /** From SIGTERM to SIGKILL. */
  readonly stopGraceMs: number;
}

/** When a service whose program has ended is started again; `on-failure`: unless it ended with exit code 0. */
export type RestartRule = 'always' | 'on-failure' | 'never';

export interface ServiceVolume {
  /** `bind`: a file or directory of the host; `volume`: one of the engine's, by name. */
  readonly kind: 'bind' | 'volume';
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

export interface ServicePort {
  readonly hostIp: string;
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: 'tcp' | 'udp';
}

export interface ServiceLimits {
  /** Processors; 0: as many as there are. */
  readonly cpu: number;
  /** 0: no bound. */
  readonly memoryBytes: number;
  /** 0: no bound. */
  readonly processes: number;
  /** What the engine keeps of the service's output, at least. */
  readonly logBytes: number;
}

export interface HealthCheck {
  /** A program in the container, or a URL as the agent's host reaches it. */
  readonly probe: { kind: 'command'; argv: readonly string[] } | { kind: 'http'; url: string };
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Failures in a row after which the service is unhealthy. */
  readonly retries: number;
  /** After the start failures do not count for so long. */
  readonly startPeriodMs: number;
  /** What is done to an unhealthy service. */
  readonly onFailure: 'restart' | 'report';
}

/** Whether every engine has the network; any other one is made when it is missing. */
export function isBuiltInNetwork(name: string): boolean {
  return ['bridge', 'host', 'none'].includes(name);
}

/**
 * Tells whether a container is still what the definition asks for. What can be changed without a new container, and what
 * only says when something is done, is left out.
 */
export function definitionHash(definition: ServiceDefinition): string {
  const { restart: _restart, pull: _pull, stopGraceMs: _grace, health, ...rest } = definition;
  // Those over HTTP are the agent's; the container only has none of its own then.
  const check = health?.probe.kind === 'command' ? { ...health, onFailure: undefined } : health?.probe.kind;
  return createHash('sha256')
    .update(JSON.stringify(sorted({ ...rest, health: check })))
    .digest('hex')
    .slice(0, 32);
}

/** With the keys of every map in order: in which order they were written does not matter. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, sorted(inner)]));
}
