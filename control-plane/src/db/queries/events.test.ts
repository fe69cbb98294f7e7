import { randomBytes, randomUUID } from 'node:crypto';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { beforeAll, describe, expect, test } from 'vitest';
import { claimWaiting } from '../../test-support/claim-waiting.ts';
import { startDatabase } from '../../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../../test-support/stored-executions.ts';
import { uuidv7 } from '../uuid.ts';
import { deleteAgent, insertJoinToken, joinAgent, recordLink, recordUnlink, setDrainRequested } from './agents.ts';
import { ensureTenant } from './api-keys.ts';
import { cancelExecution } from './cancel-execution.ts';
import { BEFORE_ALL_EVENTS, type EventPosition, readEvents, readerPosition, saveReaderPosition } from './events.ts';
import { type FinishedExecution, finishExecutions } from './finish-executions.ts';
import type { NewExecution } from './insert-executions.ts';
import { recordLostAgent } from './lost-agents.ts';
import { insertModule } from './modules.ts';
import { refuseExecution } from './refuse-execution.ts';
import { type ReplicaBeat, removeDeadReplicas, removeReplica } from './replicas.ts';
import { requeueExecution } from './requeue-execution.ts';
import { startExecutions } from './start-executions.ts';
import { deleteVersions } from './versions.ts';

// Here, not in a hook: it is closed after the file.
const { cold: sql } = await startDatabase();
let tenantId: string;
const agentId = randomUUID();

beforeAll(async () => {
  tenantId = await ensureTenant(sql, uuidv7(), 'default');
});

describe('events of executions', () => {
  test('a run at once tells its creation, its start and its end', async () => {
    const id = await create({ agent_id: agentId, attempt: 1, state: State.ASSIGNED });
    await finishExecutions(sql, [finished(id, { run_ms: 3 })]);
    expect(await told(id)).toEqual([
      ['execution.created', State.ASSIGNED, 1, null],
      ['execution.started', State.RUNNING, 1, null],
      ['execution.finished', State.SUCCEEDED, 1, null],
    ]);
  });

  test('a start that was recorded is not told again at the end, alone or among others', async () => {
    const ids = await Promise.all([0, 1].map(() => create({ agent_id: agentId, attempt: 1, state: State.ASSIGNED })));
    const [slow = '', quick = ''] = ids;
    const moving = { id: slow, tenant_id: tenantId, attempt: 1, agent_id: agentId, age_ms: 0 };
    await startExecutions(sql, [{ ...moving, state: State.PREPARING }], State.RUNNING);
    await startExecutions(sql, [{ ...moving, state: State.RUNNING }], State.RUNNING);
    await startExecutions(sql, [{ ...moving, state: State.RUNNING }], State.RUNNING);
    await finishExecutions(sql, [finished(slow, { run_ms: 300 }), finished(quick, { run_ms: 1 })]);
    expect((await told(slow)).map(([type]) => type)).toEqual([
      'execution.created',
      'execution.preparing',
      'execution.started',
      'execution.finished',
    ]);
    expect((await told(quick)).map(([type]) => type)).toEqual([
      'execution.created',
      'execution.started',
      'execution.finished',
    ]);
  });

  test('an end that is not wanted tells nothing', async () => {
    const id = await create({ agent_id: agentId, attempt: 1, state: State.ASSIGNED });
    await finishExecutions(sql, [finished(id, {})]);
    const before = await told(id);
    await finishExecutions(sql, [finished(id, {})]);
    await finishExecutions(sql, [finished(id, {}), finished(id, { attempt: 2 })]);
    expect(await told(id)).toEqual(before);
  });

  test('a retry tells that the attempt ran and was put back, the claim that it is assigned', async () => {
    const id = await create({ agent_id: agentId, attempt: 1, state: State.ASSIGNED });
    await requeueExecution(sql, {
      id,
      tenantId,
      attempt: 1,
      agentId,
      state: State.FAILED,
      errorCode: Code.AGENT_LOST,
      errorMessage: null,
      errorDetails: null,
      exitCode: null,
      stdoutBytes: 0,
      stderrBytes: 0,
      ran: true,
      failure: true,
      backoffMs: 0,
      pending: State.PENDING,
      replicaId: randomUUID(),
      shape: '',
    });
    await claimWaiting(sql, (waiting) => waiting.map((entry) => ({ id: entry.id, agentId })));
    expect((await told(id)).slice(1)).toEqual([
      ['execution.started', State.RUNNING, 1, null],
      ['execution.requeued', State.PENDING, 1, Code.AGENT_LOST],
      ['execution.assigned', State.ASSIGNED, 2, null],
    ]);
  });

  test('what ends while it waits tells its end', async () => {
    const cancelled = await create({ state: State.PENDING });
    const failure = { tenantId, id: cancelled, message: 'no', cancelled: State.CANCELLED, errorCode: Code.CANCELLED };
    await cancelExecution(sql, failure);
    const refused = await create({ state: State.PENDING });
    await refuseExecution(sql, {
      tenantId,
      id: refused,
      state: State.FAILED,
      errorCode: Code.NO_ELIGIBLE_AGENT,
      errorMessage: 'none',
      errorDetails: null,
    });
    expect((await told(cancelled)).at(-1)).toEqual(['execution.finished', State.CANCELLED, 0, Code.CANCELLED]);
    expect((await told(refused)).at(-1)).toEqual(['execution.finished', State.FAILED, 0, Code.NO_ELIGIBLE_AGENT]);
  });
});

describe('events of agents and modules', () => {
  test('from joining to deletion', async () => {
    const start = await newest();
    const tokenHash = randomBytes(32);
    await insertJoinToken(sql, { id: uuidv7(), tenantId, secretHash: tokenHash, ttlMs: 60_000 });
    const facts = {
      name: 'one',
      labels: {},
      version: '1.0.0',
      hardware: new Uint8Array(),
      isolation: 1,
      slots: 1,
      capacity: null,
      environments: [],
      unavailableEnvironments: {},
      instanceId: 'a',
      bootId: 'b',
      metricsAddress: '',
      dial: 0,
    };
    const { id = '' } = (await joinAgent(sql, { ...facts, id: uuidv7(), publicKey: randomBytes(32), tokenHash })) ?? {};
    await recordLink(sql, id, facts, randomUUID());
    for (const requested of [true, true, false]) await setDrainRequested(sql, tenantId, id, requested);
    await recordUnlink(sql, id, 7, 0);
    await recordUnlink(sql, id, 1, 0);
    await recordLostAgent(sql, id);
    await recordLostAgent(sql, id);
    await recordLink(sql, id, facts, randomUUID());
    await recordLostAgent(sql, id);
    await deleteAgent(sql, tenantId, id);
    const told = await readEvents(sql, start, 100);
    expect(told.map(({ type }) => type)).toEqual([
      'agent.joined',
      'agent.linked',
      'agent.drained',
      'agent.resumed',
      'agent.unlinked',
      'agent.lost',
      'agent.linked',
      'agent.deleted',
    ]);
    expect(new Set(told.map((event) => [event.agent_id, event.data?.name].join()))).toEqual(new Set([`${id},one`]));
  });

  test.each<[string, (replicaId: string) => Promise<unknown>]>([
    ['stops', (id) => removeReplica(sql, id, 30_000)],
    [
      'is dead',
      async (id) => {
        const [replica] = await sql<
          ReplicaBeat[]
        >`SELECT id, name, beat_time::text AS beat FROM replicas WHERE id = ${id}`;
        if (replica !== undefined) await removeDeadReplicas(sql, [{ ...replica, leftMs: 30_000 }], 30_000);
      },
    ],
    [
      'has no row any more',
      async (id) => {
        await sql`DELETE FROM replicas WHERE id = ${id}`;
        await removeDeadReplicas(sql, [], 30_000);
      },
    ],
  ])('the agents of a replica that %s are unlinked once, those of others are not', async (_what, remove) => {
    const [ending, other] = [randomUUID(), randomUUID()];
    await sql`INSERT INTO replicas (id, name) VALUES (${ending}, 'ending'), (${other}, 'other')`;
    const agents = [uuidv7(), uuidv7(), uuidv7()].map((id, i) => ({ id, replica_id: i === 2 ? other : ending }));
    for (const { id, replica_id } of agents) {
      await sql`INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots, session, replica_id)
        VALUES (${id}, ${tenantId}, ${id}, ${Buffer.from(id)}, '', '', 0, 1, 1, ${replica_id})`;
    }
    const start = await newest();
    await remove(ending);
    // A replica that was only slow, and tells the end of its links then.
    for (const { id, replica_id } of agents) if (replica_id === ending) await recordUnlink(sql, id, 1, 0);
    const told = (await readEvents(sql, start, 100)).map(({ type, agent_id, data }) => [type, agent_id, data]);
    const expected = agents.slice(0, 2).map(({ id }) => ['agent.unlinked', id, { name: id }]);
    expect(told.toSorted()).toEqual(expected.toSorted());
    await removeReplica(sql, other, 0);
  });

  test('a version comes once and goes once', async () => {
    const start = await newest();
    const module = {
      id: uuidv7(),
      tenantId,
      name: 'm',
      version: '1.0.0',
      environment: 'inline',
      tags: [],
      digest: 'd',
      source: 1,
      definition: new Uint8Array(),
    };
    for (let i = 0; i < 2; i++) await insertModule(sql, module, ([first]) => first);
    for (let i = 0; i < 2; i++)
      await deleteVersions(sql, 'modules', { tenantId, name: 'm', version: undefined }, ([first]) => first);
    const told = (await readEvents(sql, start, 100)).map(({ type, data }) => [type, data]);
    const data = { name: 'm', version: '1.0.0' };
    expect(told).toEqual([
      ['module.created', data],
      ['module.deleted', data],
    ]);
  });
});

describe('reading', () => {
  test('a transaction that still runs holds back what was written after it, so that nothing is passed over', async () => {
    const start = await newest();
    const late = uuidv7();
    let early = '';
    await sql.begin(async (transaction) => {
      await transaction`INSERT INTO events (tenant_id, type, execution_id) VALUES (${tenantId}, 'execution.created', ${late})`;
      early = await create({ state: State.PENDING });
      expect(await readEvents(sql, start, 100)).toEqual([]);
    });
    const seen = (await readEvents(sql, start, 100)).map((event) => event.execution_id);
    expect(seen).toEqual([late, early]);
  });

  test('goes on where the reader has said that it was', async () => {
    expect(await readerPosition(sql, 'somebody')).toBeUndefined();
    const start = await newest();
    await saveReaderPosition(sql, 'somebody', { ...start, id: start.id - 1 });
    await saveReaderPosition(sql, 'somebody', start);
    expect(await readerPosition(sql, 'somebody')).toEqual(start);
  });
});

function create(fields: Partial<NewExecution>): Promise<string> {
  return insertExecution(sql, { tenant_id: tenantId, ...fields });
}

function finished(id: string, fields: Partial<FinishedExecution>): FinishedExecution {
  return { ...finishedRow({ id, tenant_id: tenantId, agent_id: agentId }), ...fields };
}

async function told(executionId: string): Promise<unknown[][]> {
  const events = await readEvents(sql, BEFORE_ALL_EVENTS, 1000);
  return events
    .filter((event) => event.execution_id === executionId)
    .map(({ type, state, attempt, error_code }) => [type, state, attempt, error_code]);
}

async function newest(): Promise<EventPosition> {
  const last = (await readEvents(sql, BEFORE_ALL_EVENTS, 1000)).at(-1);
  return last === undefined ? BEFORE_ALL_EVENTS : { xid: last.xid, id: last.id };
}
