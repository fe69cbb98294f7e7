import { createHash } from 'node:crypto';
import type Docker from 'dockerode';
import { LABEL } from '../docker/container-list.ts';
import { definitionHash, type HealthCheck, isBuiltInNetwork, type ServiceDefinition } from './service-definition.ts';

/** Labels of containers of services, beside those of every container of an agent. */
export const SERVICE_LABEL = {
  service: 'harrier.service',
  /** What the container was made from. */
  hash: 'harrier.service.hash',
} as const;

const NANO = 1e9;
const NANOS_PER_MS = 1e6;

/** Unique on an engine that agents share, and still the name that a person looks for. */
export function containerName(service: string, dataDir: string): string {
  return `harrier-${service}-${createHash('sha256').update(dataDir).digest('hex').slice(0, 8)}`;
}

/** Labels of every container of a service of this agent. */
export function serviceLabels(dataDir: string): Record<string, string> {
  return { [LABEL.agent]: dataDir, [LABEL.role]: 'service' };
}

/**
 * What the engine is told for a service. The operator has written the definition, so that it may have what a caller's
 * container may not: networks, volumes, the image's own user. It is started again by the agent, which counts, and not by
 * the engine.
 * @param imageId so that nobody can put another image under its name meanwhile
 */
export function serviceOptions(
  definition: ServiceDefinition,
  imageId: string,
  dataDir: string,
): Docker.ContainerCreateOptions {
  const { name, command, entrypoint, env, user, workingDir, volumes, ports, networks, limits, gpus } = definition;
  const [network] = networks;
  return {
    name: containerName(name, dataDir),
    Image: imageId,
    ...(command.length === 0 ? {} : { Cmd: [...command] }),
    ...(entrypoint.length === 0 ? {} : { Entrypoint: [...entrypoint] }),
    Env: Object.entries(env).map(([variable, value]) => `${variable}=${value}`),
    ...(user === '' ? {} : { User: user }),
    ...(workingDir === '' ? {} : { WorkingDir: workingDir }),
    Labels: {
      ...serviceLabels(dataDir),
      [SERVICE_LABEL.service]: name,
      [SERVICE_LABEL.hash]: definitionHash(definition),
    },
    ...engineCheck(definition.health),
    ExposedPorts: Object.fromEntries(ports.map((port) => [containerPort(port), {}])),
    HostConfig: {
      ...(network === undefined ? {} : { NetworkMode: network }),
      PortBindings: portBindings(ports),
      Mounts: volumes.map(({ kind, source, target, readOnly }) => ({
        Type: kind,
        Source: source,
        Target: target,
        ReadOnly: readOnly,
      })),
      SecurityOpt: ['no-new-privileges'],
      // Of memory and swap together: no swap.
      ...(limits.memoryBytes > 0 ? { Memory: limits.memoryBytes, MemorySwap: limits.memoryBytes } : {}),
      ...(limits.cpu > 0 ? { NanoCpus: Math.max(1, Math.round(limits.cpu * NANO)) } : {}),
      ...(limits.processes > 0 ? { PidsLimit: limits.processes } : {}),
      ...(gpus.length === 0 ? {} : { DeviceRequests: [gpuRequest(gpus)] }),
      LogConfig: { Type: 'local', Config: { 'max-size': `${Math.max(1, limits.logBytes)}b`, 'max-file': '2' } },
      RestartPolicy: { Name: 'no' },
    },
    // Others on the same network find it by its name in the file.
    ...(network === undefined || isBuiltInNetwork(network)
      ? {}
      : { NetworkingConfig: { EndpointsConfig: { [network]: { Aliases: [name] } } } }),
  };
}

/** The engine runs checks that are programs, also while no agent is there; without one the image's own is in force. */
function engineCheck(health: HealthCheck | undefined): Pick<Docker.ContainerCreateOptions, 'Healthcheck'> {
  if (health === undefined) return {};
  if (health.probe.kind === 'http') return { Healthcheck: { Test: ['NONE'] } };
  return {
    Healthcheck: {
      Test: ['CMD', ...health.probe.argv],
      Interval: health.intervalMs * NANOS_PER_MS,
      Timeout: health.timeoutMs * NANOS_PER_MS,
      StartPeriod: health.startPeriodMs * NANOS_PER_MS,
      Retries: health.retries,
    },
  };
}

function containerPort({ containerPort: port, protocol }: ServiceDefinition['ports'][number]): string {
  return `${port}/${protocol}`;
}

function portBindings(ports: ServiceDefinition['ports']): Record<string, { HostIp: string; HostPort: string }[]> {
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const port of ports) {
    const key = containerPort(port);
    bindings[key] = [...(bindings[key] ?? []), { HostIp: port.hostIp, HostPort: String(port.hostPort) }];
  }
  return bindings;
}

function gpuRequest(gpus: readonly string[]): Docker.DeviceRequest {
  const all = gpus[0] === 'all';
  return { Capabilities: [['gpu']], ...(all ? { Count: -1 } : { DeviceIDs: [...gpus] }) };
}
