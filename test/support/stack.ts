import { afterAll } from 'vitest';
import { Agent, type AgentOptions } from './agent.ts';
import type { Clients } from './clients.ts';
import { ControlPlane, type ControlPlaneOptions } from './control-plane.ts';
import { until } from './wait.ts';

/** A control plane and its agents. */
export class Stack {
  controlPlane: ControlPlane;
  readonly agents: Agent[] = [];

  constructor(controlPlane: ControlPlane) {
    this.controlPlane = controlPlane;
  }

  get clients(): Clients {
    return this.controlPlane.clients;
  }

  get executions(): Clients['executions'] {
    return this.clients.executions;
  }

  get modules(): Clients['modules'] {
    return this.clients.modules;
  }

  /** Starts one more agent and waits until it is online. */
  async addAgent(options: Partial<AgentOptions> = {}): Promise<Agent> {
    const agent = await this.startAgent(options);
    await this.untilOnline(agent.options.name);
    return agent;
  }

  /** Starts one more agent: `agent-N` for the Nth, unless it has another name. */
  async startAgent(options: Partial<AgentOptions> = {}): Promise<Agent> {
    const name = options.name ?? `agent-${this.agents.length + 1}`;
    const joinToken = options.joinToken ?? (await this.controlPlane.joinToken());
    const agent = Agent.start({ serverUrl: this.controlPlane.url, ...options, name, joinToken });
    this.agents.push(agent);
    return agent;
  }

  /** Waits until the agent is linked and takes work. @returns its id */
  async untilOnline(name: string): Promise<string> {
    return await this.#untilAgent(name, 1);
  }

  async untilOffline(name: string): Promise<string> {
    return await this.#untilAgent(name, 3);
  }

  async idOf(name: string): Promise<string> {
    return await this.#untilAgent(name, undefined);
  }

  async #untilAgent(name: string, state: number | undefined): Promise<string> {
    return await until(`agent ${name} to be in state ${state}`, async () => {
      const ended = this.agents.find(({ options, program }) => options.name === name && !program.running);
      if (ended !== undefined && state === 1) throw new Error(`the agent ended:\n${ended.program.output.slice(-4000)}`);
      const { agents } = await this.clients.agents.listAgents({ pageSize: 1000 });
      return agents.find((agent) => agent.name === name && (state === undefined || agent.state === state))?.id;
    });
  }

  async stop(): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent.remove()));
    if (this.controlPlane.program.running) await this.controlPlane.stop();
    else this.controlPlane.disconnect();
  }
}

/** Starts the stack of a test file; it is gone after the file. */
export async function startStack(
  options: { controlPlane?: ControlPlaneOptions; agents?: Partial<AgentOptions>[] } = {},
): Promise<Stack> {
  const stack = new Stack(await ControlPlane.start(options.controlPlane));
  afterAll(() => stack.stop());
  // One after the other, so that `stack.agents` has their order; they get ready at the same time.
  for (const agent of options.agents ?? [{}]) await stack.startAgent(agent);
  await Promise.all(stack.agents.map((agent) => stack.untilOnline(agent.options.name)));
  return stack;
}
