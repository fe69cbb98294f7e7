import { createInterface } from 'node:readline';
import type Docker from 'dockerode';
import { LABEL } from '../docker/container-list.ts';
import { type DockerEngine, engineStatus } from '../docker/engine.ts';
import { whileUp } from '../docker/while-up.ts';
import type { ContainerView, Health } from './decide.ts';
import { SERVICE_LABEL, serviceLabels, serviceOptions } from './service-container.ts';
import { isBuiltInNetwork, type ServiceDefinition } from './service-definition.ts';

/** A request to the engine that was made for a service, for the metrics. */
export interface EngineCall {
  operation: 'list' | 'create' | 'start' | 'stop' | 'remove' | 'network' | 'pull';
  service: string;
  durationMs: number;
}

/** A container with what people are told of it. */
export interface ServiceContainer extends ContainerView {
  /** What the engine's own check said last. */
  readonly healthOutput: string;
}

/** Networks that were made for services of an agent have this label. */
const NETWORK_LABELS = { [LABEL.role]: 'service' };
const MS_PER_S = 1000;
const MAX_HEALTH_OUTPUT_CHARS = 300;

/** What services ask of the engine. Every method rejects with EngineUnavailableError when the engine is or gets lost. */
export class ServiceEngine {
  readonly #engine: DockerEngine;
  readonly #dataDir: string;
  readonly #onCall: (call: EngineCall) => void;

  constructor(engine: DockerEngine, dataDir: string, onCall: (call: EngineCall) => void) {
    this.#engine = engine;
    this.#dataDir = dataDir;
    this.#onCall = onCall;
  }

  /** Names of the services that this agent, or a former one on its data directory, has containers of. */
  async services(): Promise<string[]> {
    const found = await whileUp(this.#engine, this.#list(serviceLabels(this.#dataDir)));
    return [...new Set(found.map(({ Labels }) => Labels[SERVICE_LABEL.service] ?? ''))].filter((name) => name !== '');
  }

  /** All containers of a service, the newest first. */
  async containers(service: string): Promise<ServiceContainer[]> {
    return await this.timed('list', service, async () => {
      const listed = await this.#list({ ...serviceLabels(this.#dataDir), [SERVICE_LABEL.service]: service });
      const views = await Promise.all(listed.map(({ Id }) => this.#inspect(Id)));
      return views.filter((view) => view !== undefined);
    });
  }

  async create(definition: ServiceDefinition, imageId: string): Promise<void> {
    for (const network of definition.networks)
      if (!isBuiltInNetwork(network)) await this.#ensureNetwork(definition, network);
    await this.timed('create', definition.name, async () => {
      const { docker } = this.#engine;
      const container = await docker.createContainer(serviceOptions(definition, imageId, this.#dataDir));
      try {
        for (const network of definition.networks.slice(1)) await this.#connect(definition, network, container.id);
      } catch (error) {
        await container.remove({ force: true, v: true });
        throw error;
      }
    });
  }

  /** Starts a container that was made from the definition, in all of its networks. */
  async start(definition: ServiceDefinition, id: string): Promise<void> {
    await this.#completeNetworks(definition, id);
    // 304: it runs already.
    await this.timed('start', definition.name, () => allowing([304], this.#engine.docker.getContainer(id).start()));
  }

  /** Asks the program to end, kills it after the grace, and removes the container with its anonymous volumes. */
  async remove(service: string, id: string, graceMs: number): Promise<void> {
    await this.stop(service, id, graceMs);
    const container = this.#engine.docker.getContainer(id);
    // 409: it is being removed already.
    await this.timed('remove', service, () => allowing([404, 409], container.remove({ force: true, v: true })));
  }

  async stop(service: string, id: string, graceMs: number): Promise<void> {
    const container = this.#engine.docker.getContainer(id);
    const t = Math.ceil(graceMs / MS_PER_S);
    await this.timed('stop', service, () => allowing([304, 404], container.stop({ t })));
  }

  /** Tells of every container of a service that starts, ends, goes, or changes its health, until the stream ends. */
  async watch(onEvent: (service: string) => void): Promise<{ ended: Promise<void>; close(): void }> {
    const label = Object.entries(serviceLabels(this.#dataDir)).map(([name, value]) => `${name}=${value}`);
    const event = ['start', 'die', 'destroy', 'health_status', 'pause', 'unpause'];
    const asked = this.#engine.docker.getEvents({ filters: { type: ['container'], label, event } });
    const stream = (await whileUp(this.#engine, asked)) as NodeJS.ReadableStream & { destroy(): void };
    const { lost } = this.#engine;
    const close = (): void => stream.destroy();
    lost.addEventListener('abort', close, { once: true });
    const ended = readEvents(stream, onEvent).finally(() => lost.removeEventListener('abort', close));
    return { ended, close };
  }

  /** Measures what `work` takes, however it ends. */
  async timed<T>(operation: EngineCall['operation'], service: string, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await whileUp(this.#engine, work());
    } finally {
      this.#onCall({ operation, service, durationMs: performance.now() - start });
    }
  }

  /**
   * Connects what is not connected: an agent that was killed, or an engine that was lost, between making the container and
   * its networks has left it with the first one, and its labels do not tell.
   */
  async #completeNetworks(definition: ServiceDefinition, id: string): Promise<void> {
    const [, ...further] = definition.networks;
    if (further.length === 0) return;
    const { name } = definition;
    const info = await this.timed('list', name, () => this.#engine.docker.getContainer(id).inspect());
    const connected = Object.keys(info.NetworkSettings.Networks);
    for (const network of further.filter((each) => !connected.includes(each))) {
      if (!isBuiltInNetwork(network)) await this.#ensureNetwork(definition, network);
      await this.timed('network', name, () => this.#connect(definition, network, id));
    }
  }

  async #connect({ name }: ServiceDefinition, network: string, container: string): Promise<void> {
    const endpoint = { Container: container, EndpointConfig: { Aliases: [name] } };
    const connected: Promise<unknown> = this.#engine.docker.getNetwork(network).connect(endpoint);
    await connected;
  }

  async #ensureNetwork({ name: service }: ServiceDefinition, network: string): Promise<void> {
    await this.timed('network', service, async () => {
      const { docker } = this.#engine;
      // The client's types know this request in too many forms.
      const known: Promise<{ Name: string }[]> = docker.listNetworks({ filters: { name: [network] } });
      if ((await known).some(({ Name }) => Name === network)) return;
      // 409: another service has just made it.
      const made = docker.createNetwork({ Name: network, CheckDuplicate: true, Labels: NETWORK_LABELS });
      await allowing([409], made);
    });
  }

  #list(labels: Readonly<Record<string, string>>): Promise<Docker.ContainerInfo[]> {
    const label = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
    return this.#engine.docker.listContainers({ all: true, filters: { label } });
  }

  /** undefined: it is gone. */
  async #inspect(id: string): Promise<ServiceContainer | undefined> {
    const info = await allowing([404], this.#engine.docker.getContainer(id).inspect());
    if (info === undefined) return undefined;
    const { State, Config } = info;
    return {
      id,
      hash: Config.Labels[SERVICE_LABEL.hash] ?? '',
      status: statusOf(State.Status),
      exitCode: State.ExitCode,
      startedAtMs: Date.parse(State.StartedAt),
      endedAtMs: Date.parse(State.FinishedAt),
      health: healthOf(State.Health?.Status),
      healthOutput: (State.Health?.Log.at(-1)?.Output ?? '').trim().slice(0, MAX_HEALTH_OUTPUT_CHARS),
    };
  }
}

/** The answer; undefined when the engine refuses with one of the statuses. */
async function allowing<T>(statuses: readonly number[], answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (statuses.includes(engineStatus(error) ?? 0)) return undefined;
    throw error;
  }
}

const STATUSES: Readonly<Record<string, ContainerView['status']>> = {
  created: 'created',
  running: 'running',
  exited: 'ended',
  // What the engine could not remove; it is tried again.
  dead: 'ended',
};

function statusOf(status: string): ContainerView['status'] {
  return STATUSES[status] ?? 'busy';
}

function healthOf(status: string | undefined): Health {
  return status === 'starting' || status === 'healthy' || status === 'unhealthy' ? status : 'none';
}

async function readEvents(stream: NodeJS.ReadableStream, onEvent: (service: string) => void): Promise<void> {
  const lines = createInterface({ input: stream });
  stream.on('error', () => lines.close());
  // It repeats the errors of its input.
  lines.on('error', () => lines.close());
  const closed = Promise.withResolvers<void>();
  lines.once('close', () => closed.resolve());
  lines.on('line', (line) => {
    const { Actor } = JSON.parse(line) as { Actor?: { Attributes?: Record<string, string> } };
    const service = Actor?.Attributes?.[SERVICE_LABEL.service];
    if (service !== undefined) onEvent(service);
  });
  await closed.promise;
}
