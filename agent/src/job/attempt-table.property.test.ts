import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type AgentMessage,
  type Assignment,
  AssignmentSchema,
  CancelAttemptSchema,
  LockDecidedSchema,
  LogStoredSchema,
  ResultStoredSchema,
  type ServerMessageSchema,
  type WelcomeSchema as Welcome,
  WelcomeSchema,
} from '@harrier/shared/gen/link';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type {
  EnvironmentProvider,
  EnvironmentRequest,
  PreparationEvents,
  PreparedEnvironment,
} from '../environment/environment.ts';
import { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { InlineEnvironment } from '../environment/inline-environment.ts';
import type { AttemptEnd, AttemptKey, Executor } from '../executor/executor.ts';
import { NO_GPUS } from '../test-support/no-gpus.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { AttemptTable } from './attempt-table.ts';

const END: Omit<AttemptEnd, 'stderrBytes'> = {
  outcome: 'succeeded',
  error: undefined,
  exitCode: undefined,
  output: new Uint8Array(0),
  runMs: 0,
  cpuMs: 0,
  maxRssBytes: 0,
  stdoutBytes: 0,
  stdoutTruncated: false,
  stderrTruncated: false,
};

/** What every standard error of the model holds, so that each byte can be told from its neighbours. */
const PATTERN = Buffer.from(Array.from({ length: 251 }, (_, n) => n));
const BYTES = Buffer.alloc(8 * 1024 * 1024, PATTERN);

interface Running {
  key: AttemptKey;
  produced: number;
  acked: number;
  sent: number;
  finished: boolean;
}

/** The launcher as its protocol describes it, with what it has sent and the agent has not read yet. */
class ModelLauncher implements Executor {
  readonly kind = 'process';
  readonly attempts = new Map<string, Running>();
  wire: { welcome?: true; deliver: (table: AttemptTable) => void }[] = [];

  start({ ref }: Assignment, _prepared: PreparedEnvironment, prelude: Uint8Array): undefined {
    if (ref === undefined || this.attempts.has(ref.executionId)) return;
    expect(BYTES.subarray(0, prelude.length).equals(prelude), 'the prelude').toBe(true);
    const at = prelude.length;
    this.attempts.set(ref.executionId, { key: ref, produced: at, acked: 0, sent: at, finished: false });
    this.wire.push({ deliver: (table) => table.onStarted(ref) });
  }

  produce(running: Running, bytes: number): void {
    if (running.finished) return;
    running.produced += bytes;
    this.#sendOutput(running);
  }

  finish(running: Running): void {
    if (running.finished) return;
    running.finished = true;
    this.#sendEnd(running);
  }

  cancel(key: AttemptKey): void {
    const running = this.attempts.get(key.executionId);
    if (running !== undefined) this.finish(running);
  }

  acknowledgeOutput(key: AttemptKey, _stdoutOffset: number, stderrOffset: number): void {
    const running = this.attempts.get(key.executionId);
    if (running === undefined) return;
    running.acked = Math.max(running.acked, Math.min(stderrOffset, running.produced));
    running.sent = Math.max(running.sent, running.acked);
  }

  forget(key: AttemptKey): void {
    if (this.attempts.get(key.executionId)?.finished) this.attempts.delete(key.executionId);
  }

  replay(): void {
    const held = [...this.attempts.values()].map(({ key, finished }) => ({ ...key, finished }));
    // The connection passes on the answer to the last hello only.
    this.wire = this.wire.filter(({ welcome }) => !welcome);
    this.wire.push({ welcome: true, deliver: (table) => table.onRecovered(this, held) });
    for (const running of this.attempts.values()) {
      running.sent = running.acked;
      this.#sendOutput(running);
      if (running.finished) this.#sendEnd(running);
    }
  }

  #sendOutput(running: Running): void {
    const { key, sent, produced } = running;
    if (produced === sent) return;
    this.wire.push({ deliver: (table) => table.onOutput(key, 'stderr', sent, BYTES.subarray(sent, produced)) });
    running.sent = produced;
  }

  #sendEnd({ key, produced }: Running): void {
    this.wire.push({ deliver: (table) => table.onFinished(key, { ...END, stderrBytes: produced }) });
  }
}

interface Making {
  tenant: string;
  events: PreparationEvents;
  signal: AbortSignal;
  done: PromiseWithResolvers<void>;
  produced: number;
  asking: boolean;
}

/** Makes environments under the test's command; whoever makes one is told apart by its tenant. */
class ModelProvider implements EnvironmentProvider {
  readonly kind = 'venv';
  readonly making = new Map<string, Making>();
  readonly written = new Map<string, number>();
  held = 0;

  unavailable(): undefined {}

  prepared(): undefined {}

  async prepare({ tenant }: EnvironmentRequest, events: PreparationEvents, signal: AbortSignal) {
    const making: Making = { tenant, events, signal, done: Promise.withResolvers(), produced: 0, asking: false };
    this.making.set(tenant, making);
    const aborted = () => making.done.reject(signal.reason);
    signal.addEventListener('abort', aborted);
    try {
      await making.done.promise;
    } finally {
      this.making.delete(tenant);
      signal.removeEventListener('abort', aborted);
    }
    this.held++;
    let releases = 0;
    const release = () => {
      if (releases++ === 0) this.held--;
    };
    return { start: { key: tenant }, release };
  }

  /** At most what is kept, in all. */
  write(making: Making, bytes: number): void {
    const from = making.produced;
    making.produced = Math.min(from + bytes, 4 * 1024 * 1024);
    this.written.set(making.tenant, making.produced);
    making.events.onOutput(BYTES.subarray(from, making.produced));
  }

  lock(making: Making): void {
    if (making.asking) return;
    making.asking = true;
    making.events.decideLock('lock', '').then(
      () => making.done.resolve(),
      () => {},
    );
  }

  resolve(): never {
    throw new Error('the model resolves nothing');
  }
}

interface Stored {
  key: AttemptKey;
  bytes: number;
  results: number;
}

type ServerMessageInit = NonNullable<MessageInitShape<typeof ServerMessageSchema>['message']>;

/** A control plane that refuses gaps, and the network in both directions. */
class ModelControlPlane {
  readonly executions = new Map<string, Stored>();
  readonly launcher = new ModelLauncher();
  readonly provider = new ModelProvider();
  readonly table: AttemptTable;
  linked = false;
  toServer: AgentMessage[] = [];
  toAgent: ServerMessageInit[] = [];

  constructor() {
    const environments = new EnvironmentRegistry(() => {});
    environments.add(new InlineEnvironment());
    environments.add(this.provider);
    this.table = new AttemptTable({
      slots: 1000,
      environments,
      caps: { cpu: 4, memoryBytes: 1, tmpBytes: 1, network: 'none' },
      gpus: NO_GPUS,
      send: (message) => this.linked && this.toServer.push(message),
      onFinished: () => {},
      onEnvironmentPrepared: () => {},
      onQuiet: () => {},
      onForgotten: () => {},
      logger: silentLogger(),
      nowMs: () => 0,
    });
    this.table.addExecutor(this.launcher);
  }

  execute(): void {
    const key = { executionId: String(this.executions.size), attempt: 1 };
    this.executions.set(key.executionId, { key, bytes: 0, results: 0 });
    if (this.linked) this.#assign(key);
  }

  linkUp(): void {
    if (this.linked) return;
    const held = new Set(this.table.held().map(({ ref }) => ref.executionId));
    const welcome: MessageInitShape<typeof Welcome> & { resume: object[] } = { resume: [] };
    this.linked = true;
    for (const { key, bytes, results } of this.executions.values()) {
      if (results > 0) continue;
      if (held.has(key.executionId)) welcome.resume.push({ ref: key, stderrOffset: BigInt(bytes) });
      else this.#assign(key);
    }
    this.table.linkUp(create(WelcomeSchema, welcome));
  }

  linkDown(): void {
    if (!this.linked) return;
    this.linked = false;
    this.toServer = [];
    this.toAgent = [];
    this.table.linkDown();
  }

  loseLauncherConnection(): void {
    this.launcher.wire = [];
    this.table.onLost(this.launcher);
    this.launcher.replay();
  }

  deliverFromLauncher(): void {
    this.launcher.wire.shift()?.deliver(this.table);
  }

  deliverToServer(): void {
    const message = this.toServer.shift()?.message;
    if (message?.case === 'log') {
      const stored = this.#stored(message.value.ref);
      expect(Number(message.value.offset), 'a gap in the log').toBeLessThanOrEqual(stored.bytes);
      const { offset, data } = message.value;
      const end = Number(offset) + data.length;
      expect(BYTES.subarray(Number(offset), end).equals(data), 'other bytes than were written').toBe(true);
      stored.bytes = Math.max(stored.bytes, Number(message.value.offset) + message.value.data.length);
      this.toAgent.push({
        case: 'logStored',
        value: create(LogStoredSchema, { ref: stored.key, stderrOffset: BigInt(stored.bytes) }),
      });
    } else if (message?.case === 'result') {
      const stored = this.#stored(message.value.ref);
      expect(stored.bytes, 'bytes missing at the result').toBe(Number(message.value.stderrBytes));
      stored.results = 1;
      this.toAgent.push({ case: 'resultStored', value: create(ResultStoredSchema, { ref: stored.key }) });
    } else if (message?.case === 'lockFound') {
      const { ref, lock } = message.value;
      this.toAgent.push({ case: 'lockDecided', value: create(LockDecidedSchema, { ...(ref && { ref }), lock }) });
    } else {
      expect(message?.case).not.toBe('rejected');
    }
  }

  deliverToAgent(): void {
    const message = this.toAgent.shift();
    if (message?.case === 'assignment') this.table.assign(create(AssignmentSchema, message.value));
    else if (message?.case === 'logStored') this.table.logStored(create(LogStoredSchema, message.value));
    else if (message?.case === 'lockDecided') this.table.lockDecided(create(LockDecidedSchema, message.value));
    else if (message?.case === 'cancel') this.table.cancel(create(CancelAttemptSchema, message.value));
    else if (message?.case === 'resultStored') this.table.resultStored(create(ResultStoredSchema, message.value).ref);
  }

  cancel({ key }: Stored): void {
    if (this.linked) this.toAgent.push({ case: 'cancel', value: create(CancelAttemptSchema, { ref: key }) });
  }

  async settle(): Promise<void> {
    this.linkUp();
    for (let rest = 1; rest > 0; ) {
      for (const { asking, done } of this.provider.making.values()) if (!asking) done.resolve();
      await turn();
      for (const running of this.launcher.attempts.values()) this.launcher.finish(running);
      this.deliverFromLauncher();
      this.deliverToServer();
      this.deliverToAgent();
      rest = this.launcher.wire.length + this.toServer.length + this.toAgent.length + this.provider.making.size;
    }
  }

  #assign(ref: AttemptKey): void {
    const kind = Number(ref.executionId) % 2 === 1 ? ({ case: 'venv', value: {} } as const) : undefined;
    const limits = { memoryBytes: 1n, tmpBytes: 1n };
    const value = { ref, tenant: ref.executionId, limits, ...(kind && { environment: { kind } }) };
    this.toAgent.push({ case: 'assignment', value });
  }

  #stored(ref: AttemptKey | undefined): Stored {
    const stored = this.executions.get(ref?.executionId ?? '');
    if (stored === undefined) throw new Error(`unknown execution ${ref?.executionId}`);
    return stored;
  }
}

function pick<T>(all: readonly T[], number: number): T | undefined {
  return all[number % Math.max(1, all.length)];
}

/** Lets what a promise leads to happen. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

test('whatever breaks in between, every byte is stored without a gap and every result arrives', async () => {
  const step = fc.oneof(
    fc.constant({ kind: 'execute' as const, number: 0 }),
    fc.record({
      kind: fc.constantFrom('fromLauncher' as const, 'toServer' as const, 'toAgent' as const),
      number: fc.constant(0),
    }),
    fc.record({
      kind: fc.constantFrom(
        'produce' as const,
        'finish' as const,
        'print' as const,
        'flood' as const,
        'lock' as const,
        'prepared' as const,
        'failed' as const,
        'cancel' as const,
      ),
      number: fc.nat(9),
    }),
    fc.record({
      kind: fc.constantFrom('linkUp' as const, 'linkUp' as const, 'linkDown' as const, 'launcherLost' as const),
      number: fc.constant(0),
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 120, size: 'max' }), async (steps) => {
      const model = new ModelControlPlane();
      const written = new Map<string, number>();
      model.linkUp();
      for (const { kind, number } of steps) {
        const attempts = [...model.launcher.attempts.values()];
        const running = pick(attempts, number);
        const making = pick([...model.provider.making.values()], number);
        const execution = pick([...model.executions.values()], number);
        if (kind === 'execute') model.execute();
        else if (kind === 'fromLauncher') model.deliverFromLauncher();
        else if (kind === 'toServer') model.deliverToServer();
        else if (kind === 'toAgent') model.deliverToAgent();
        else if (kind === 'linkUp') model.linkUp();
        else if (kind === 'linkDown') model.linkDown();
        else if (kind === 'launcherLost') model.loseLauncherConnection();
        else if (kind === 'produce' && running) model.launcher.produce(running, number + 1);
        else if (kind === 'finish' && running) model.launcher.finish(running);
        else if (kind === 'cancel' && execution) model.cancel(execution);
        else if (kind === 'print' && making) model.provider.write(making, number + 1);
        else if (kind === 'flood' && making) model.provider.write(making, 700_000);
        else if (kind === 'lock' && making) model.provider.lock(making);
        else if (kind === 'prepared') making?.done.resolve();
        else if (kind === 'failed') making?.done.reject(new Error('no such package'));
        await turn();
        for (const [id, bytes] of model.provider.written) written.set(id, bytes);
        for (const { key, produced } of model.launcher.attempts.values()) written.set(key.executionId, produced);
      }
      await model.settle();
      for (const { key, bytes, results } of model.executions.values()) {
        expect(results).toBe(1);
        expect(bytes).toBe(written.get(key.executionId) ?? 0);
      }
      expect([model.table.active, model.table.size, model.launcher.attempts.size]).toEqual([0, 0, 0]);
      expect([model.provider.making.size, model.provider.held]).toEqual([0, 0]);
    }),
    { numRuns: 300 },
  );
});
