import { create } from '@bufbuild/protobuf';
import { createLogger } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { CreateExecutionRequestSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { AgentMessageSchema } from '@harrier/shared/gen/link';
import { BUILT_IN_CLASSES } from '@harrier/shared/task-classes-file';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { AgentRegistry, type LinkedAgent } from '../agent-link/agent-registry.ts';
import type { GpuDevice } from '../agent-link/gpu-inventory.ts';
import { GroupCommit } from '../db/group-commit.ts';
import type { FinishedExecution, FinishTimes } from '../db/queries/finish-executions.ts';
import type { NewLogChunk } from '../db/queries/log-chunks.ts';
import type { Sql } from '../db/sql.ts';
import { AgentIndex } from '../scheduler/agent-index.ts';
import { chooseGpus } from '../scheduler/gpu-choice.ts';
import { canBePlaced } from '../scheduler/place.ts';
import { type Requirement, reservationOf } from '../scheduler/requirement.ts';
import { requeueDelayMs } from './attempt-endings.ts';
import { ExecutionTracker } from './execution-tracker.ts';
import { resolveExecution } from './resolved-execution.ts';
import type { TrackedExecution } from './tracked-execution.ts';

const NO_NODE = 'there is no device node /dev/nvidia0';

/** A tracker with agents and an index of them; its database takes whatever it is told. */
class World {
  readonly index = new AgentIndex();
  readonly registry = new AgentRegistry(this.index);
  readonly tracker: ExecutionTracker;
  /** How often somebody has asked for a look at the queue. */
  looks = 0;
  readonly tracked: TrackedExecution;
  #attempt = 0;

  constructor() {
    const sql = (async () => [{ not_before: new Date() }]) as unknown as Sql;
    const times = { queue_time: new Date(), assign_time: null, start_time: null, end_time: new Date() };
    this.tracker = new ExecutionTracker({
      sql,
      replicaId: 'replica',
      registry: this.registry,
      logger: createLogger({ name: 'test', level: 'silent' }),
      finishes: new GroupCommit<FinishedExecution, FinishTimes | undefined>({
        write: async (rows) => rows.map(() => times),
        concurrency: 1,
        maxItems: 1,
      }),
      logs: new GroupCommit<NewLogChunk, void>({ write: async () => [], concurrency: 1, maxItems: 1 }),
      resolveRow: () => expect.unreachable('it is in memory'),
      decideLock: async (_resolved, lock) => lock,
      release: (agentId, executionId) => this.registry.freeSlot(agentId, executionId),
      whyNobody: (requirement) => (this.#canBePlaced(requirement) ? undefined : 'nobody has room'),
      queued: () => this.looks++,
      onTracked: () => undefined,
      onTaken: () => undefined,
      onRetry: () => undefined,
      onFinished: () => undefined,
    });
    // Of agents that have enough cards, the one with fewest is chosen.
    this.registry.add(agentWith('broken', 1));
    this.registry.add(agentWith('healthy', 2));
    const request = create(CreateExecutionRequestSchema, {
      target: { case: 'code', value: { source: 'def handler(input): ...' } },
      limits: { gpus: 1 },
    });
    const resolved = resolveExecution({
      id: 'execution',
      tenantId: 'tenant',
      request,
      module: undefined,
      classes: BUILT_IN_CLASSES,
      inputJson: '{}',
      jsonText: false,
    });
    const now = new Date();
    const unknown = { assignTime: undefined, startTime: undefined, endTime: undefined };
    this.tracked = this.tracker.track(resolved, { createTime: now, queueTime: now, ...unknown }, 0);
    this.tracked.move({ state: State.PENDING, attempt: 0, agentId: '' });
  }

  get chosen(): string | undefined {
    return this.index.place(this.tracked.resolved.requirement, this.tracked.id)?.id;
  }

  /** It goes to the agent that is chosen, which sends it back. @returns which it was */
  async sentBack(code: Code, message: string): Promise<string | undefined> {
    const { requirement } = this.tracked.resolved;
    const candidate = this.index.place(requirement, this.tracked.id);
    const agent = candidate === undefined ? undefined : this.registry.get(candidate.id);
    if (agent === undefined || requirement.demand === undefined) return undefined;
    const reservation = reservationOf(requirement.demand, chooseGpus(agent, requirement.demand) ?? []);
    const attempt = ++this.#attempt;
    this.tracker.assign(this.tracked, {
      agentId: agent.id,
      reservation,
      attempt,
      assignTime: new Date(),
      failures: 0,
    });
    const value = { ref: { executionId: this.tracked.id, attempt }, requeue: true, error: { code, message } };
    this.tracker.handle(agent, create(AgentMessageSchema, { message: { case: 'rejected', value } }).message);
    await vi.waitFor(() => expect(this.tracked.isHeldBy(agent.id, attempt)).toBe(false));
    return agent.id;
  }

  #canBePlaced(requirement: Requirement): boolean {
    return canBePlaced(requirement, this.registry.candidates());
  }
}

function agentWith(id: string, cards: number): LinkedAgent {
  const devices = Array.from(
    { length: cards },
    (_, at): GpuDevice => ({
      uuid: `${id}-${at}`,
      model: 'H100',
      memoryBytes: 1,
      driverVersion: '550',
      migProfile: '',
      free: true,
      quarantineReason: undefined,
    }),
  );
  return {
    id,
    name: id,
    tenantId: 'tenant',
    labels: {},
    environments: new Set(['inline']),
    unavailableEnvironments: {},
    slots: 8,
    active: 0,
    executions: 0,
    taken: undefined,
    gpus: { devices, key: id },
    draining: false,
    stopping: false,
    drainRequested: false,
    instanceId: id,
    session: 1,
    isolation: 2,
    version: '',
    hardware: new Uint8Array(),
    services: new Uint8Array(),
    load: undefined,
    lastSeenMs: 0,
    channel: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
  };
}

let world: World;
beforeEach(() => {
  vi.useFakeTimers();
  world = new World();
});
afterEach(() => {
  world.tracker.stop();
  vi.useRealTimers();
});

test('what an agent sends back goes to others, for whatever reason', async () => {
  expect(await world.sentBack(Code.SUBMIT_FAILED, NO_NODE)).toBe('broken');
  expect(world.tracked.current.state).toBe(State.PENDING);
  expect(world.chosen).toBe('healthy');
  expect(world.tracked.resolved.requirement.refusals?.get('broken')).toBe(NO_NODE);
});

test('an agent that sent something back is asked again later, and the queue is looked at then', async () => {
  await world.sentBack(Code.SUBMIT_FAILED, NO_NODE);
  const before = world.looks;
  await vi.runAllTimersAsync();
  expect(world.looks).toBeGreaterThan(before);
  expect(world.chosen).toBe('broken');
});

test('however often it is sent back, others are asked first when it is due again', async () => {
  for (let time = 0; time < 20; time++) {
    expect(await world.sentBack(Code.SUBMIT_FAILED, NO_NODE)).toBe('broken');
    vi.advanceTimersByTime(requeueDelayMs(time + 1));
    expect(world.chosen).toBe('healthy');
    await vi.runAllTimersAsync();
  }
});

test('it fails for want of room only when no agent has room', async () => {
  expect(await world.sentBack(Code.SUBMIT_FAILED, NO_NODE)).toBe('broken');
  // The first may have room: it was not asked for it.
  expect(await world.sentBack(Code.ENVIRONMENT_FAILED, 'the disk is full')).toBe('healthy');
  expect(world.tracked.current.state).toBe(State.PENDING);
});

test('it fails when all agents have said that they have no room', async () => {
  expect(await world.sentBack(Code.ENVIRONMENT_FAILED, 'the disk is full')).toBe('broken');
  expect(world.tracked.current.state).toBe(State.PENDING);
  expect(await world.sentBack(Code.ENVIRONMENT_FAILED, 'the disk is full')).toBe('healthy');
  expect(world.tracked.result).toMatchObject({ state: State.FAILED, error_message: 'nobody has room' });
});
