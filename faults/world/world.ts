import { once } from 'node:events';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect } from '../../control-plane/src/db/connection.ts';
import type { Sql } from '../../control-plane/src/db/sql.ts';
import type { Clients } from '../../test/support/clients.ts';
import { PYTHON_IMAGE, TestEngine } from '../../test/support/docker-engine.ts';
import { ExternalPostgres } from '../../test/support/postgres.ts';
import { directory } from '../../test/support/workspace.ts';
import { untilRuns } from '../workload/probe.ts';
import type { Surroundings } from '../workload/request.ts';
import { AgentHost } from './agent-host.ts';
import { installObserver } from './observer.ts';
import { orphanProcesses } from './orphans.ts';
import { install, type Release } from './release.ts';
import { ReplicaHost } from './replica-host.ts';
import { Witness } from './witness.ts';

export interface WorldOptions {
  replicas: number;
  agents: number;
  /** With an engine of its own. */
  docker: boolean;
}

/** What ends the parts of a world: the agents first, while the rest is there to tell what stayed of them. */
interface Cleanup {
  hosts: AsyncDisposableStack;
  rest: AsyncDisposableStack;
}

/** Of rounds with findings; not in the repository. */
const LOGS = fileURLToPath(new URL('../out', import.meta.url));
const START_MS = 60_000;
const SHOWN_CHARS = 2_000;

/**
 * How long an agent may believe that it owns its attempts: short, so that faults beyond it are short too, and long enough for an
 * agent to be started again on a busy machine.
 */
export const LEASE_MS = 15_000;

/** A PostgreSQL, replicas and agents, each in processes and a network of its own, and a witness beside them. */
export class World {
  readonly database: ExternalPostgres;
  readonly sql: Sql;
  readonly replicas: readonly ReplicaHost[];
  readonly agents: readonly AgentHost[];
  readonly witness: Witness;
  readonly surroundings: Surroundings;
  /** All agents use it; undefined: none. */
  readonly docker: TestEngine | undefined;
  readonly #cleanup: Cleanup;
  #turn = 0;

  private constructor(
    parts: Pick<World, 'database' | 'sql' | 'replicas' | 'agents' | 'witness' | 'surroundings' | 'docker'>,
    cleanup: Cleanup,
  ) {
    this.#cleanup = cleanup;
    this.database = parts.database;
    this.sql = parts.sql;
    this.replicas = parts.replicas;
    this.agents = parts.agents;
    this.witness = parts.witness;
    this.surroundings = parts.surroundings;
    this.docker = parts.docker;
  }

  /** Starts everything; nothing is left when that fails. */
  static async start(options: WorldOptions): Promise<World> {
    const cleanup = { hosts: new AsyncDisposableStack(), rest: new AsyncDisposableStack() };
    try {
      return await World.#start(options, cleanup);
    } catch (error) {
      for (const parts of [cleanup.hosts, cleanup.rest]) await parts.disposeAsync().catch(() => undefined);
      throw error;
    }
  }

  static async #start(options: WorldOptions, cleanup: Cleanup): Promise<World> {
    const { hosts, rest } = cleanup;
    const witness = new Witness(directory('evidence'));
    rest.defer(() => witness.close());
    const database = await ExternalPostgres.start();
    rest.defer(() => database.stop());
    const docker = options.docker ? await unusedEngine(rest) : undefined;
    if (docker !== undefined) {
      await docker.start();
      rest.defer(() => docker.leave());
    }
    const sql = connect({ url: database.url }, 2);
    rest.defer(() => sql.end());
    const replicas: ReplicaHost[] = [];
    const settings = { HARRIER_LEASE_S: String(LEASE_MS / 1000), HARRIER_MAX_SCHEDULES: '1000000' };
    for (let number = 1; number <= options.replicas; number++) {
      const replica = await ReplicaHost.start(`replica-${number}`, database.url, settings);
      rest.defer(() => replica.remove());
      replicas.push(replica);
    }
    await installObserver(sql);
    const [first] = replicas;
    if (first === undefined) throw new Error('a world needs a replica');
    const release = install();
    const agents: AgentHost[] = [];
    for (let number = 1; number <= options.agents; number++) {
      const preferred = replicas.map((_, i) => replicas[(number + i) % replicas.length] ?? first);
      const host = await AgentHost.start({
        ...{ number, world: process.pid, release, joinToken: await first.controlPlane.joinToken() },
        replicaPorts: preferred.map(({ controlPlane }) => controlPlane.port),
        // The disk is small.
        env: { HARRIER_AGENT_PYTHON: witness.python, HARRIER_AGENT_MIN_FREE_BYTES: '0', ...dockerSettings(docker) },
      });
      hosts.defer(() => host.remove());
      agents.push(host);
    }
    const surroundings = {
      witness: [witness.pipe, witness.listenIn(release.runtime, '/harrier')],
      image: PYTHON_IMAGE,
    };
    const parts = { database, sql, replicas, agents, witness, surroundings, docker };
    const world = new World(parts, cleanup);
    const selectors = agents.map(({ selector }) => selector);
    const running = await untilRuns(() => world.clients(), selectors, 'start', AbortSignal.timeout(START_MS));
    if (!running) throw new Error(`the agents do not run anything:\n${world.lastLogs()}`);
    return world;
  }

  /** Another installation of the same agent, as an upgrade brings one. */
  newRelease(): Release {
    const release = install();
    this.witness.listenIn(release.runtime, '/harrier');
    return release;
  }

  /** Of the next replica that runs. */
  clients(): Clients {
    const running = this.replicas.filter((replica) => replica.running);
    const replica = running[this.#turn++ % Math.max(1, running.length)] ?? this.replicas[0];
    if (replica === undefined) throw new Error('a world needs a replica');
    return replica.controlPlane.clients;
  }

  /** Processes that belong to this world and to none of its living agents. */
  orphanProcesses(): string[] {
    const parents = this.agents.map(({ agent }) => ({
      dataDirectory: agent.dataDirectory,
      pid: agent.program.running ? agent.program.pid : 0,
    }));
    return orphanProcesses(parents, (pid) => this.witness.isOwn(pid));
  }

  /** Containers of calls, also ended ones; warm containers stay while their agent does. */
  callContainers(): string[] {
    return this.#containers('--filter', 'label=harrier.role=run');
  }

  /** Processes that should run and do not; they are started again. */
  async restore(): Promise<string[]> {
    const ended: string[] = [];
    if (!this.database.program.running) await this.database.startAgain();
    for (const replica of this.replicas.filter(({ running }) => !running)) {
      ended.push(`${replica.name} ended by itself: ${replica.controlPlane.program.stderr.slice(-500)}`);
      await replica.startAgain();
    }
    for (const host of this.agents.filter(({ agent }) => !agent.program.running)) {
      ended.push(`${host.name} ended by itself: ${host.agent.program.output.slice(-500)}`);
      host.agent.startAgain();
    }
    return ended;
  }

  /** The end of what each process has logged, for people. */
  lastLogs(): string {
    return this.#logs()
      .map(({ name, text }) => `${name}:\n${text.slice(-SHOWN_CHARS)}`)
      .join('\n');
  }

  /** Writes down what each process has logged since it was started. @returns the directory */
  keepLogs(about: string): string {
    const kept = join(LOGS, about);
    mkdirSync(kept, { recursive: true });
    for (const { name, text } of this.#logs()) writeFileSync(join(kept, `${name}.log`), text);
    for (const { name, agent } of this.agents) {
      copyFileSync(join(agent.dataDirectory, 'launcher.log'), join(kept, `${name}-launcher.log`));
    }
    return kept;
  }

  #logs(): { name: string; text: string }[] {
    return [
      ...this.replicas.map(({ name, controlPlane }) => ({ name, text: controlPlane.program.stderr })),
      ...this.agents.map(({ name, agent }) => ({ name, text: agent.program.output })),
      { name: 'postgres', text: this.database.program.stderr },
    ];
  }

  /** Ends everything. @returns processes that stayed all the same */
  async stop(): Promise<string[]> {
    const { hosts, rest } = this.#cleanup;
    try {
      await hosts.disposeAsync();
      const left = [...this.orphanProcesses(), ...this.callContainers()];
      for (const line of this.#containers()) this.docker?.docker('rm', '--force', line.split(' ')[0] ?? '');
      return left;
    } finally {
      await rest.disposeAsync();
    }
  }

  /** Of this world's agents: a machine that was killed may have left some in the engine. */
  #containers(...filters: string[]): string[] {
    const { docker } = this;
    if (docker === undefined) return [];
    const list = ({ agent }: AgentHost) => {
      const own = `label=harrier.agent=${agent.dataDirectory}`;
      return docker
        .docker('ps', '--all', '--filter', own, ...filters, '--format', '{{.Names}} {{.Status}}')
        .split('\n');
    };
    return this.agents.flatMap(list).filter((line) => line !== '');
  }
}

/**
 * No machine's `docker-kill` hits another one on this host: each holds a socket that has the name of its engine, which the kernel
 * gives to one process and takes back when that has ended, however. Its images stay for the next one.
 */
async function unusedEngine(cleanup: AsyncDisposableStack): Promise<TestEngine> {
  for (let number = 1; ; number++) {
    const name = number === 1 ? 'harrier-faults' : `harrier-faults.${number}`;
    const holder = createServer();
    try {
      await once(holder.listen(`\0${name}`), 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
      continue;
    }
    cleanup.defer(() => void holder.close());
    return new TestEngine(name);
  }
}

/** Any agent may run the image of the tests, in its engine. */
function dockerSettings(docker: TestEngine | undefined): Record<string, string> {
  if (docker === undefined) return {};
  return { HARRIER_AGENT_DOCKER_HOST: `unix://${docker.socket}`, HARRIER_AGENT_ALLOWED_IMAGES: PYTHON_IMAGE };
}
