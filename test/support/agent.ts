import { join } from 'node:path';
import type { HostPort } from '@harrier/shared';
import { type ProcessInfo, processesWith, processTree } from './processes.ts';
import { type Exit, Program, type ProgramOptions, untilGone } from './program.ts';
import { until } from './wait.ts';
import { directory, environment, REPOSITORY } from './workspace.ts';

export interface AgentOptions {
  name: string;
  serverUrl: string;
  /** Only for the first start on a data directory. */
  joinToken?: string;
  dataDirectory?: string;
  labels?: Record<string, string>;
  /** Default: that of the agent. */
  slots?: number;
  flags?: readonly string[];
  /** The program to start. Default: that of this repository. */
  program?: string;
  /** A command that ends by executing its arguments: the agent. */
  wrapper?: readonly string[];
  env?: Record<string, string>;
}

/** A real agent with its launcher. */
export class Agent {
  options: AgentOptions;
  readonly dataDirectory: string;
  program: Program;

  private constructor(options: AgentOptions) {
    this.options = options;
    this.dataDirectory = options.dataDirectory ?? directory('a');
    this.program = new Program(agentProgram(this.dataDirectory, options));
  }

  /** Starts one; whether it is linked tells the control plane. */
  static start(options: AgentOptions): Agent {
    return new Agent(options);
  }

  /**
   * Starts the agent again on the same data, with the identity that it has.
   * @param changes options that are other ones from now on
   */
  startAgain(changes: Partial<AgentOptions> = {}): void {
    const { joinToken, ...options } = { ...this.options, ...changes };
    this.options = options;
    this.program = new Program(agentProgram(this.dataDirectory, options));
  }

  /** Where it serves `/metrics` and `/healthz`. */
  async metricsUrl(): Promise<string> {
    return await until('the agent to say where its metrics are', () => {
      for (const { metrics } of this.program.logs) {
        if (metrics !== undefined) return `http://${(metrics as HostPort).host}:${(metrics as HostPort).port}`;
      }
      return undefined;
    });
  }

  get launcherPid(): number | undefined {
    return processesWith(join(this.dataDirectory, 'launcher.sock'))[0]?.pid;
  }

  /** The launcher and everything that it runs. */
  launcherProcesses(): ProcessInfo[] {
    return this.launcherPid === undefined ? [] : processTree(this.launcherPid);
  }

  /** Asks it to stop; its launcher goes on unless the agent was told to take it along. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    return await this.program.stop(signal);
  }

  /** Ends agent, launcher and all that they run. */
  async remove(): Promise<void> {
    const launcher = this.launcherProcesses();
    if (this.program.running) {
      this.program.signal('SIGTERM');
      // The second signal does not wait for what runs.
      this.program.signal('SIGTERM');
      await this.stop('SIGTERM');
    }
    if (this.launcherPid !== undefined) process.kill(this.launcherPid, 'SIGTERM');
    await untilGone(launcher);
  }
}

function agentProgram(dataDirectory: string, options: AgentOptions): ProgramOptions {
  const { wrapper = [] } = options;
  const labels = Object.entries(options.labels ?? {}).flatMap(([key, value]) => ['--label', `${key}=${value}`]);
  return {
    argv: [
      ...wrapper,
      process.execPath,
      options.program ?? join(REPOSITORY, 'agent/src/main.ts'),
      ...['--server-url', options.serverUrl, '--data-dir', dataDirectory, '--name', options.name],
      ...['--metrics-listen', '127.0.0.1:0', ...labels],
      ...(options.slots === undefined ? [] : ['--slots', String(options.slots)]),
      ...(options.flags ?? []),
    ] as [string, ...string[]],
    env: environment({
      ...(options.joinToken === undefined ? {} : { HARRIER_JOIN_TOKEN: options.joinToken }),
      ...options.env,
    }),
    cwd: dataDirectory,
  };
}
