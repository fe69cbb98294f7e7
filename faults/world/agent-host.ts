import { execFileSync } from 'node:child_process';
import { Agent } from '../../test/support/agent.ts';
import { until } from '../../test/support/wait.ts';
import { directory } from '../../test/support/workspace.ts';
import { AgentNetwork } from './agent-network.ts';
import { type Direction, type FrameFault, LinkProxy } from './link-proxy.ts';
import type { Release } from './release.ts';

export interface AgentHostOptions {
  /** From 1. */
  number: number;
  /** Tells worlds on one host apart. */
  world: number;
  joinToken: string;
  /** Ports of the replicas, in the order in which it knows them. */
  replicaPorts: readonly number[];
  release: Release;
  env: Readonly<Record<string, string>>;
}

interface Parts {
  name: string;
  agent: Agent;
  /** One for each replica. */
  proxies: readonly LinkProxy[];
  /** Undefined: that of the host. */
  network: AgentNetwork | undefined;
}

/** Enough for the load of a round on a machine with two cores. */
const SLOTS = 8;
const DISK_BYTES = 512 * 1024 * 1024;
/** For the start of an agent on a busy machine. */
const LINK_MS = 30_000;
/** What an agent logs then. */
const LINKED = 'linked to the control plane';

/** A host with an agent: its network, what stands between it and the replicas, and the processes. */
export class AgentHost {
  readonly name: string;
  readonly agent: Agent;
  /** One for each replica. */
  readonly #proxies: readonly LinkProxy[];
  readonly #network: AgentNetwork | undefined;
  readonly #cleanup: AsyncDisposableStack;

  private constructor({ name, agent, proxies, network }: Parts, cleanup: AsyncDisposableStack) {
    this.name = name;
    this.agent = agent;
    this.#proxies = proxies;
    this.#network = network;
    this.#cleanup = cleanup;
  }

  /** Starts it; nothing is left when that fails. */
  static async start(options: AgentHostOptions): Promise<AgentHost> {
    const cleanup = new AsyncDisposableStack();
    try {
      return await AgentHost.#start(options, cleanup);
    } catch (error) {
      await cleanup.disposeAsync().catch(() => undefined);
      throw error;
    }
  }

  static async #start(options: AgentHostOptions, cleanup: AsyncDisposableStack): Promise<AgentHost> {
    const { number, world, joinToken, release, env, replicaPorts } = options;
    const name = `agent-${number}`;
    // Without root all share the network of the host, and cuts happen in the proxy.
    const network = isRoot() ? AgentNetwork.create(world, number) : undefined;
    cleanup.defer(() => network?.remove());
    const address = network?.address ?? '127.0.0.1';
    const dataDirectory = directory('a');
    // A disk of its own, which can be filled without harm to anybody else.
    if (isRoot()) {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES},mode=755`, 'tmpfs', dataDirectory]);
      cleanup.defer(() => void execFileSync('umount', ['--lazy', dataDirectory]));
    }
    const proxies = await Promise.all(replicaPorts.map((port) => LinkProxy.listen(address, port)));
    for (const proxy of proxies) cleanup.defer(() => proxy.close());
    const agent = Agent.start({
      name,
      serverUrl: proxies.map(({ port }) => `http://${address}:${port}`).join(','),
      joinToken,
      dataDirectory,
      labels: { host: name },
      slots: SLOTS,
      wrapper: network?.wrapper ?? [],
      program: release.main,
      env: { ...env },
    });
    cleanup.defer(() => agent.remove());
    return new AgentHost({ name, agent, proxies, network }, cleanup);
  }

  /** Selects this agent. */
  get selector(): string {
    return `host=${this.name}`;
  }

  /** Lets no packet of the direction through. */
  cut(direction: Direction): void {
    if (this.#network !== undefined) this.#network.cut(direction);
    else for (const proxy of this.#proxies) proxy.hold(direction);
  }

  mend(): void {
    this.#network?.mend();
    for (const proxy of this.#proxies) proxy.release();
  }

  /** @param make a treatment for the link to each replica; undefined: frames pass as they are */
  treatFrames(direction: Direction, make: (() => FrameFault) | undefined): void {
    for (const proxy of this.#proxies) proxy.treatFrames(direction, make?.());
  }

  /** Resolves when the agent, since it was started last, has been linked; also when it ends, or takes too long. */
  async linked(): Promise<void> {
    const { program } = this.agent;
    const isLinked = () => program.logs.some(({ msg }) => msg === LINKED);
    await until('', () => isLinked() || !program.running, { deadlineMs: LINK_MS }).catch(() => undefined);
  }

  /** Kills the agent's own process; its launcher goes on. */
  async kill(): Promise<void> {
    await this.agent.stop('SIGKILL');
  }

  async remove(): Promise<void> {
    this.mend();
    if (this.agent.program.running) this.agent.program.signal('SIGCONT');
    await this.#cleanup.disposeAsync();
  }
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}
