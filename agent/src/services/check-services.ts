import { sharedGpu } from './gpu-problem.ts';
import { hostSide } from './port.ts';
import type { ServiceEntry } from './read-service.ts';
import type { ServiceDefinition } from './service-definition.ts';
import { holdsSocket } from './volume.ts';

export interface Sources {
  entry: ServiceEntry;
  override: ServiceEntry | undefined;
}

export interface CheckOptions {
  /** Sockets that are as good as root on the host, by every path that leads to them. */
  socketPaths: readonly string[];
  /** A path without symbolic links, as far as it is there. */
  realPath: (path: string) => string;
  /** Whether the settings name this GPU as one that executions get, or any where it is `all`; what needs no driver. */
  isGivenGpu: (uuid: string) => boolean;
}

/** Reports what does not go together in one service, at the field that is to be changed. */
export function reportUnfit(service: ServiceDefinition, sources: Sources, options: CheckOptions): void {
  const { entry, override } = sources;
  if (service.image === '' && !entry.reader.has('image') && override?.reader.has('image') !== true) {
    entry.reader.report('image', 'is missing');
  }
  const [network] = service.networks;
  if (service.ports.length > 0 && (network === 'host' || network === 'none')) {
    report(sources, 'ports', `cannot be published on the network ${network}`);
  }
  const targets = service.volumes.map(({ target }) => target);
  const twice = targets.find((target, index) => targets.indexOf(target) !== index);
  if (twice !== undefined) report(sources, 'volumes', `${twice} is mounted twice`);
  reportGpus(service, sources, options);
  if ((override?.allowDockerSocket ?? entry.allowDockerSocket) === true) return;
  for (const { kind, source } of service.volumes) {
    if (kind !== 'bind' || !holdsSocket(options.realPath(source), options.socketPaths)) continue;
    const why = `${source} gives it the socket of the Docker engine, which is as good as root on this host`;
    report(sources, 'volumes', `${why}; if that is meant, say allow_docker_socket: true`);
  }
}

function reportGpus({ gpus }: ServiceDefinition, sources: Sources, { isGivenGpu }: CheckOptions): void {
  const given = gpus.find((uuid) => isGivenGpu(uuid));
  if (given !== undefined) report(sources, 'gpus', sharedGpu(given));
}

/** Reports ports that two services of one environment want. */
export function reportConflicts(services: readonly (Sources & { definition: ServiceDefinition })[]): void {
  const taken = new Map<string, string>();
  for (const service of services) {
    for (const port of service.definition.ports) {
      const side = hostSide(port);
      const other = taken.get(side);
      if (other === undefined) taken.set(side, service.definition.name);
      else report(service, 'ports', `${side} is already that of the service ${other}`);
    }
  }
}

/** At the override, if it is what says so. */
function report({ entry, override }: Sources, field: string, message: string): void {
  const source = override?.reader.has(field) === true ? override : entry;
  source.reader.report(field, message);
}
