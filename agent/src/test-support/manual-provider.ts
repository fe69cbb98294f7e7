import type {
  EnvironmentProvider,
  EnvironmentRequest,
  PreparationEvents,
  PreparedEnvironment,
  ResolvedEnvironment,
} from '../environment/environment.ts';

interface Making {
  request: EnvironmentRequest;
  events: PreparationEvents;
  signal: AbortSignal;
  /** Ends it, well or not. */
  done: PromiseWithResolvers<void>;
}

/** Makes environments under the test's command. */
export class ManualProvider implements EnvironmentProvider {
  readonly kind = 'venv';
  /** Those that were begun, in order. */
  readonly made: Making[] = [];
  /** What is there already. */
  isThere = false;
  /** Its lock, when requests come without. */
  lock: string | undefined;
  reason: string | undefined;
  /** Environments that are held. */
  held = 0;
  resolved: Promise<ResolvedEnvironment> = Promise.resolve({
    ...{ lock: 'six==1.17.0', platform: 'cpython-312-x86_64-linux-gnu' },
    ...{ sizeBytes: 11_053, held: false },
  });
  resolveSignal: AbortSignal | undefined;

  unavailable(): string | undefined {
    return this.reason;
  }

  prepared(): PreparedEnvironment | undefined {
    if (!this.isThere) return undefined;
    return this.lock === undefined ? this.#hold() : { ...this.#hold(), lock: this.lock };
  }

  async prepare(request: EnvironmentRequest, events: PreparationEvents, signal: AbortSignal) {
    const done = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => done.reject(signal.reason), { once: true });
    this.made.push({ request, events, signal, done });
    await done.promise;
    return this.#hold();
  }

  resolve(_request: EnvironmentRequest, signal: AbortSignal): Promise<ResolvedEnvironment> {
    this.resolveSignal = signal;
    return this.resolved;
  }

  holdAll(): PreparedEnvironment {
    return this.#hold();
  }

  /** The newest. */
  get last(): Making {
    const last = this.made.at(-1);
    if (last === undefined) throw new Error('nothing is being prepared');
    return last;
  }

  #hold(): PreparedEnvironment {
    this.held++;
    let isHeld = true;
    const release = () => {
      if (isHeld) this.held--;
      isHeld = false;
    };
    return { start: { key: 'venv-1' }, release };
  }
}
