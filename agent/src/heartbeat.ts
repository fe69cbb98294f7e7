import { create } from '@bufbuild/protobuf';
import { type Hardware, type HostLoad, type Isolation_Level, IsolationSchema } from '@harrier/shared/gen/agent';
import { type AgentMessage, AgentMessageSchema } from '@harrier/shared/gen/link';

export interface HeartbeatSources {
  load: () => HostLoad;
  activeExecutions: () => number;
  /** The hardware, when it differs from what was told last. */
  changedHardware: () => Hardware | undefined;
  isolation: () => Isolation_Level;
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
    const { load, activeExecutions, changedHardware, isolation, stopping } = this.#sources;
    const hardware = changedHardware();
    const value = {
      load: load(),
      activeExecutions: activeExecutions(),
      isolation: create(IsolationSchema, { level: isolation() }),
      stopping: stopping(),
      ...(hardware === undefined ? {} : { hardware }),
    };
    this.#send(create(AgentMessageSchema, { message: { case: 'heartbeat', value } }));
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
