import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type AgentMessage,
  AssignmentSchema,
  LogStoredSchema,
  ResultStoredSchema,
  type ServerMessageSchema,
  type WelcomeSchema as Welcome,
  WelcomeSchema,
} from '@harrier/shared/gen/link';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { InlineEnvironment } from '../environment/inline-environment.ts';
import type { AttemptEnd, AttemptKey, Executor } from '../executor/executor.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { AttemptTable } from './attempt-table.ts';

const END: Omit<AttemptEnd, 'stdoutBytes'> = {
  outcome: 'succeeded',
  error: undefined,
  exitCode: undefined,
  output: new Uint8Array(0),
  runMs: 0,
  cpuMs: 0,
  maxRssBytes: 0,
  stderrBytes: 0,
  stdoutTruncated: false,
  stderrTruncated: false,
};

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

  start({ ref }: Parameters<Executor['start']>[0]): undefined {
    if (ref === undefined || this.attempts.has(ref.executionId)) return;
    this.attempts.set(ref.executionId, { key: ref, produced: 0, acked: 0, sent: 0, finished: false });
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

  acknowledgeOutput(key: AttemptKey, stdoutOffset: number): void {
    const running = this.attempts.get(key.executionId);
    if (running === undefined) return;
    running.acked = Math.max(running.acked, stdoutOffset);
    running.sent = Math.max(running.sent, stdoutOffset);
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
    this.wire.push({ deliver: (table) => table.onOutput(key, 'stdout', sent, new Uint8Array(produced - sent)) });
    running.sent = produced;
  }

  #sendEnd({ key, produced }: Running): void {
    this.wire.push({ deliver: (table) => table.onFinished(key, { ...END, stdoutBytes: produced }) });
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
  readonly table: AttemptTable;
  linked = false;
  toServer: AgentMessage[] = [];
  toAgent: ServerMessageInit[] = [];

  constructor() {
    const environments = new EnvironmentRegistry(() => {});
    environments.add(new InlineEnvironment());
    this.table = new AttemptTable({
      slots: 1000,
      environments,
      caps: { memoryBytes: 1, tmpBytes: 1, network: 'none' },
      send: (message) => this.linked && this.toServer.push(message),
      onFinished: () => {},
      onEnvironmentPrepared: () => {},
      onQuiet: () => {},
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
      if (held.has(key.executionId)) welcome.resume.push({ ref: key, stdoutOffset: BigInt(bytes) });
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
      stored.bytes = Math.max(stored.bytes, Number(message.value.offset) + message.value.data.length);
      this.toAgent.push({
        case: 'logStored',
        value: create(LogStoredSchema, { ref: stored.key, stdoutOffset: BigInt(stored.bytes) }),
      });
    } else if (message?.case === 'result') {
      const stored = this.#stored(message.value.ref);
      expect(stored.bytes, 'bytes missing at the result').toBe(Number(message.value.stdoutBytes));
      stored.results = 1;
      this.toAgent.push({ case: 'resultStored', value: create(ResultStoredSchema, { ref: stored.key }) });
    } else {
      expect(message?.case).not.toBe('rejected');
    }
  }

  deliverToAgent(): void {
    const message = this.toAgent.shift();
    if (message?.case === 'assignment') this.table.assign(create(AssignmentSchema, message.value));
    else if (message?.case === 'logStored') this.table.logStored(create(LogStoredSchema, message.value));
    else if (message?.case === 'resultStored') this.table.resultStored(create(ResultStoredSchema, message.value).ref);
  }

  settle(): void {
    this.linkUp();
    for (let rest = 1; rest > 0; ) {
      for (const running of this.launcher.attempts.values()) this.launcher.finish(running);
      this.deliverFromLauncher();
      this.deliverToServer();
      this.deliverToAgent();
      rest = this.launcher.wire.length + this.toServer.length + this.toAgent.length;
    }
  }

  #assign(ref: AttemptKey): void {
    this.toAgent.push({ case: 'assignment', value: { ref, tenant: 't', limits: { memoryBytes: 1n, tmpBytes: 1n } } });
  }

  #stored(ref: AttemptKey | undefined): Stored {
    const stored = this.executions.get(ref?.executionId ?? '');
    if (stored === undefined) throw new Error(`unknown execution ${ref?.executionId}`);
    return stored;
  }
}

test('whatever breaks in between, every byte is stored without a gap and every result arrives', () => {
  const step = fc.oneof(
    fc.constant({ kind: 'execute' as const, number: 0 }),
    fc.record({
      kind: fc.constantFrom('fromLauncher' as const, 'toServer' as const, 'toAgent' as const),
      number: fc.constant(0),
    }),
    fc.record({ kind: fc.constantFrom('produce' as const, 'finish' as const), number: fc.nat(9) }),
    fc.record({
      kind: fc.constantFrom('linkUp' as const, 'linkUp' as const, 'linkDown' as const, 'launcherLost' as const),
      number: fc.constant(0),
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
      const model = new ModelControlPlane();
      const written = new Map<string, number>();
      model.linkUp();
      for (const { kind, number } of steps) {
        const attempts = [...model.launcher.attempts.values()];
        const running = attempts[number % Math.max(1, attempts.length)];
        if (kind === 'execute') model.execute();
        else if (kind === 'fromLauncher') model.deliverFromLauncher();
        else if (kind === 'toServer') model.deliverToServer();
        else if (kind === 'toAgent') model.deliverToAgent();
        else if (kind === 'linkUp') model.linkUp();
        else if (kind === 'linkDown') model.linkDown();
        else if (kind === 'launcherLost') model.loseLauncherConnection();
        else if (kind === 'produce' && running) model.launcher.produce(running, number + 1);
        else if (kind === 'finish' && running) model.launcher.finish(running);
        for (const { key, produced } of model.launcher.attempts.values()) written.set(key.executionId, produced);
      }
      model.settle();
      for (const { key, bytes, results } of model.executions.values()) {
        expect(results).toBe(1);
        expect(bytes).toBe(written.get(key.executionId) ?? 0);
      }
      expect([model.table.active, model.table.size, model.launcher.attempts.size]).toEqual([0, 0, 0]);
    }),
    { numRuns: 500 },
  );
});
