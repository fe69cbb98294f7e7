import { create } from '@bufbuild/protobuf';
import type { Hardware, HostLoad, Isolation, Resources } from '@harrier/shared/gen/agent';
import { type AgentMessage, AgentMessageSchema, type ManagedServices } from '@harrier/shared/gen/link';
import type { Support } from './environment/environment-registry.ts';

export interface HeartbeatSources {
  /** The number of the beat that is about to be sent. */
  number: () => bigint;
  load: () => HostLoad;
  activeExecutions: () => number;
  /** The hardware, when it differs from what was told last. */
  changedHardware: () => Hardware | undefined;
  /** What can be prepared, when it differs from what was told last. */
  changedEnvironments: () => Support | undefined;
  /** The services, when they differ from what was told last. */
  changedServices: () => ManagedServices | undefined;
  /** What executions can have altogether, when it differs from what was told last. */
  changedCapacity: () => Resources | undefined;
  isolation: () => Isolation;
  stopping: () => boolean;
}

/** Sends heartbeats while the link is up: at the interval that the control plane asks for, and at once on a change. */
export class Heartbeat {
  readonly #sources: HeartbeatSources;
  readonly #send: (message: AgentMessage) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(sources: HeartbeatSources, send: (message: AgentMessage) => void) {
    this.#sources = sources;
    this.#send = send;
  }

  /** Beats now and then every `intervalMs`, until `stop`. */
  start(intervalMs: number): void {
    this.stop();
    this.#timer = setInterval(() => this.beat(), intervalMs);
    this.beat();
  }

  /** Beats now, when beating at all. */
  beat(): void {
    if (this.#timer === undefined) return;
    const { number, load, activeExecutions, isolation, stopping } = this.#sources;
    const hardware = this.#sources.changedHardware();
    const environments = this.#sources.changedEnvironments();
    const services = this.#sources.changedServices();
    const capacity = this.#sources.changedCapacity();
    const value = {
      number: number(),
      load: load(),
      activeExecutions: activeExecutions(),
      isolation: isolation(),
      stopping: stopping(),
      ...(hardware === undefined ? {} : { hardware }),
      ...(environments === undefined ? {} : { environments }),
      ...(services === undefined ? {} : { services }),
      ...(capacity === undefined ? {} : { capacity }),
    };
    this.#send(create(AgentMessageSchema, { message: { case: 'heartbeat', value } }));
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
