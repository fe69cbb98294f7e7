import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Clients } from './clients.ts';
import { type Exit, Program, untilGone } from './program.ts';
import { until } from './wait.ts';
import { directory, environment, REPOSITORY } from './workspace.ts';

export interface ControlPlaneOptions {
  dataDirectory?: string;
  /** Absent: the embedded PostgreSQL. */
  databaseUrl?: string;
  /** Flags beside those that every test needs. */
  flags?: readonly string[];
  /** Where to listen: a restart has to come back where the agents look for it. Default any free port. */
  port?: number;
  env?: Record<string, string>;
}

/** A real control plane in a process of its own. */
export class ControlPlane {
  readonly program: Program;
  readonly dataDirectory: string;
  readonly options: ControlPlaneOptions;
  readonly #clients: Clients[] = [];
  url = '';
  metricsUrl = '';
  adminKey = '';
  clients!: Clients;

  private constructor(options: ControlPlaneOptions) {
    this.options = options;
    this.dataDirectory = options.dataDirectory ?? directory('cp');
    this.program = new Program(controlPlaneProgram(this.dataDirectory, options));
  }

  /** Starts one and waits until it serves. */
  static async start(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
    const controlPlane = new ControlPlane(options);
    const { listen, metrics } = JSON.parse(await controlPlane.program.firstLine());
    controlPlane.url = `http://${listen}`;
    controlPlane.metricsUrl = `http://${metrics}/metrics`;
    controlPlane.adminKey = readFileSync(join(controlPlane.dataDirectory, 'admin.key'), 'utf8').trim();
    controlPlane.clients = controlPlane.clientsWith(controlPlane.adminKey);
    return controlPlane;
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  clientsWith(apiKey: string): Clients {
    const clients = new Clients(this.url, apiKey);
    this.#clients.push(clients);
    return clients;
  }

  /** Asks it to stop; every process that it had is gone then. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    const tree = this.program.tree();
    this.disconnect();
    const exit = await this.program.stop(signal);
    await untilGone(tree);
    return exit;
  }

  /** Ends it without warning. Its database goes on until the next control plane on the directory, or `stopDatabase`. */
  async kill(): Promise<void> {
    this.disconnect();
    await this.program.stop('SIGKILL');
  }

  /** A new process on the same data, on the same port. */
  async restarted(): Promise<ControlPlane> {
    return await ControlPlane.start({ ...this.options, dataDirectory: this.dataDirectory, port: this.port });
  }

  async joinToken(): Promise<string> {
    return (await this.clients.agents.createJoinToken({})).token;
  }

  /** Waits until so many agents are linked and take work. */
  async untilOnline(count: number): Promise<void> {
    await until(`${count} agents to be online`, async () => {
      const { agents } = await this.clients.agents.listAgents({ pageSize: 1000 });
      return agents.filter(({ state }) => state === 1).length >= count;
    });
  }

  disconnect(): void {
    for (const clients of this.#clients) clients.close();
  }
}

function controlPlaneProgram(dataDirectory: string, options: ControlPlaneOptions) {
  return {
    argv: [
      process.execPath,
      join(REPOSITORY, 'control-plane/src/main.ts'),
      ...['--listen', `127.0.0.1:${options.port ?? 0}`, '--metrics-listen', '127.0.0.1:0', '--data-dir', dataDirectory],
      ...(options.flags ?? []),
    ] as [string, ...string[]],
    env: environment({
      ...(options.databaseUrl === undefined ? {} : { HARRIER_DATABASE_URL: options.databaseUrl }),
      ...options.env,
    }),
    cwd: dataDirectory,
  };
}
