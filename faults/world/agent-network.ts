import { execFileSync } from 'node:child_process';
import type { Direction } from './link-proxy.ts';

/** Addresses for an agent, for a world, and worlds for which there are addresses. */
const AGENT_ADDRESSES = 4;
const WORLD_ADDRESSES = 16;
const WORLDS = 8_192;

/** The network of an agent's host: a namespace of its own with one cable to this one. Takes root. */
export class AgentNetwork {
  /** Where programs in it reach what listens here. */
  readonly address: string;
  /** Runs what follows in it; the control groups of the host stay visible, unlike with `ip netns exec`. */
  readonly wrapper: readonly string[];
  readonly #name: string;

  private constructor(name: string, address: string) {
    this.#name = name;
    this.address = address;
    this.wrapper = ['nsenter', `--net=/run/netns/${name}`, '--'];
  }

  /**
   * @param world tells the networks of two machines on one host apart
   * @param number of the agent, from 1 to 3
   */
  static create(world: number, number: number): AgentNetwork {
    const name = `hf${world.toString(36)}-${number}`;
    const network = (world % WORLDS) * WORLD_ADDRESSES + AGENT_ADDRESSES * number;
    const [here, there] = [1, 2].map((host) => addressIn(network + host));
    const inside = ['-n', name];
    ip('netns', 'add', name);
    ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'agent0', 'netns', name);
    ip('address', 'add', `${here}/30`, 'dev', name);
    ip('link', 'set', name, 'up');
    ip(...inside, 'address', 'add', `${there}/30`, 'dev', 'agent0');
    ip(...inside, 'link', 'set', 'agent0', 'up');
    ip(...inside, 'link', 'set', 'lo', 'up');
    return new AgentNetwork(name, here ?? '');
  }

  /** Drops every packet of a direction without a word. */
  cut(direction: Direction): void {
    const [chain, flag] = direction === 'to agent' ? ['INPUT', '-i'] : ['OUTPUT', '-o'];
    this.#iptables('-A', chain, flag, 'agent0', '-j', 'DROP');
  }

  mend(): void {
    this.#iptables('-F');
  }

  remove(): void {
    ip('netns', 'delete', this.#name);
  }

  #iptables(...args: string[]): void {
    const [file = '', ...rest] = this.wrapper;
    execFileSync(file, [...rest, 'iptables', '-w', ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  }
}

/** An address of 198.18.0.0/15 (RFC 2544): for tests of networks, and nobody's. */
function addressIn(number: number): string {
  return ['198', 18 + (number >> 16), (number >> 8) & 0xff, number & 0xff].join('.');
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
