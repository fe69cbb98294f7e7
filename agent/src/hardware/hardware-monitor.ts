import { create } from '@bufbuild/protobuf';
import { type Logger, messageOf } from '@harrier/shared';
import { type Hardware, HardwareSchema } from '@harrier/shared/gen/agent';
import { isWorthTelling } from './hardware-change.ts';
import type { HardwareFacts, Probe } from './probe.ts';

const TICK_MS = 10_000;

interface Watched {
  name: string;
  probe: Probe;
  facts: HardwareFacts;
  dueAtMs: number;
  busy: boolean;
}

export interface HardwareMonitorOptions {
  probes: Readonly<Record<string, Probe>>;
  /** Something was found that is worth telling at once. */
  onChange: () => void;
  logger: Logger;
}

/** What the host is and has, kept up to date. A probe that hangs delays itself only. */
export class HardwareMonitor {
  readonly #options: HardwareMonitorOptions;
  readonly #watched: Watched[];
  #current: Hardware = create(HardwareSchema);
  #told: Hardware | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: HardwareMonitorOptions) {
    this.#options = options;
    this.#watched = Object.entries(options.probes).map(([name, probe]) => {
      return { name, probe, facts: {}, dueAtMs: Number.NEGATIVE_INFINITY, busy: false };
    });
  }

  get current(): Hardware {
    return this.#current;
  }

  /** Resolves when every probe has answered once, or at the deadline; what comes later is a change. May be stopped before. */
  async start(deadlineMs: number): Promise<void> {
    const deadline = Promise.withResolvers<void>();
    const timer = setTimeout(deadline.resolve, deadlineMs);
    await Promise.race([this.#askDue(), deadline.promise]);
    clearTimeout(timer);
    if (!this.#stopped) this.#timer = setInterval(() => void this.#askDue(), TICK_MS);
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
  }

  /** The hardware, and takes it as told. */
  tell(): Hardware {
    this.#told = this.#current;
    return this.#current;
  }

  /** The hardware when it differs from what was told last. */
  tellChange(): Hardware | undefined {
    if (this.#told !== undefined && !isWorthTelling(this.#told, this.#current)) return undefined;
    return this.tell();
  }

  /** What a probe knows between two questions. */
  set(name: string, facts: HardwareFacts): void {
    const watched = this.#watched.find((one) => one.name === name);
    if (watched === undefined) throw new Error(`there is no hardware probe "${name}"`);
    watched.facts = { ...watched.facts, ...facts };
    this.#merge();
  }

  async #askDue(): Promise<void> {
    const nowMs = performance.now();
    const due = this.#watched.filter(({ dueAtMs, busy }) => !busy && dueAtMs <= nowMs);
    await Promise.all(due.map((watched) => this.#ask(watched)));
  }

  async #ask(watched: Watched): Promise<void> {
    const { name, probe } = watched;
    watched.busy = true;
    // A little less than the interval, so that the tick on which it is due is not missed by a hair.
    watched.dueAtMs = probe.everyMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + probe.everyMs - 1000;
    try {
      watched.facts = { ...watched.facts, ...(await probe.read()) };
      this.#merge();
    } catch (error) {
      this.#options.logger.warn({ probe: name, reason: messageOf(error) }, 'hardware probe failed');
    } finally {
      watched.busy = false;
    }
  }

  #merge(): void {
    this.#current = create(HardwareSchema, Object.assign({}, ...this.#watched.map(({ facts }) => facts)));
    if (this.#told !== undefined && isWorthTelling(this.#told, this.#current)) this.#options.onChange();
  }
}
