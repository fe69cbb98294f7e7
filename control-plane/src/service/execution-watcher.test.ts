import { randomUUID } from 'node:crypto';
import { Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { finishExecutions } from '../db/queries/finish-executions.ts';
import { storeLogChunks } from '../db/queries/log-chunks.ts';
import { deleteLogs } from '../db/queries/retention.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../test-support/stored-executions.ts';
import { ChangeSignal } from './change-signal.ts';
import { ExecutionWatcher, type ExecutionWatcherOptions, type LogPosition } from './execution-watcher.ts';
import { LogStream } from './log-stream.ts';

const { cold: sql } = await startDatabase();
const tenantId = randomUUID();
const agentId = randomUUID();
await sql`INSERT INTO tenants (id, name) VALUES (${tenantId}, 'tenant')`;

const CHUNK_BYTES = 10;
/** More than are read at once. */
const CHUNKS = 40;
const LOG_BYTES = CHUNKS * CHUNK_BYTES;

/** Of a replica that follows nothing. */
const watcher = new ExecutionWatcher({
  sql,
  tracker: { get: () => undefined },
} as unknown as ExecutionWatcherOptions);

async function storeLog(executionId: string, attempt: number): Promise<void> {
  const chunks = Array.from({ length: CHUNKS }, (_, index) => ({
    ...{ tenantId, executionId, attempt, stream: Stream.STDOUT, offset: index * CHUNK_BYTES },
    data: Buffer.alloc(CHUNK_BYTES, 'x'),
  }));
  await storeLogChunks(sql, chunks);
}

/** An execution that has ended with its second attempt; the log of either is on stdout. */
async function ended(): Promise<string> {
  const id = await insertExecution(sql, {
    ...{ tenant_id: tenantId, state: State.RUNNING, attempt: 2, agent_id: agentId },
  });
  await sql`INSERT INTO attempts (tenant_id, execution_id, attempt, agent_id, state, stdout_bytes, stderr_bytes)
    VALUES (${tenantId}, ${id}, 1, ${agentId}, ${State.FAILED}, ${LOG_BYTES}, 0)`;
  for (const attempt of [1, 2]) await storeLog(id, attempt);
  await finishExecutions(sql, [
    finishedRow({ id, tenant_id: tenantId, agent_id: agentId, attempt: 2, stdout_bytes: LOG_BYTES }),
  ]);
  return id;
}

async function deleteAllLogs(): Promise<void> {
  const after = '00000000-0000-0000-0000-000000000000';
  await deleteLogs(sql, { tenantId, olderThanMs: 0, after, limit: 1_000, maxLogBytes: Number.MAX_SAFE_INTEGER });
}

type Reader = (id: string, from: LogPosition) => AsyncGenerator<{ kind: string; piece?: { data: Uint8Array } }>;
const readers: [string, Reader][] = [
  ['ReadLogs', (id, from) => watcher.readLogs({ tenantId, id, from, follow: false, signal: never })],
  ['ReadLogs that follows', (id, from) => watcher.readLogs({ tenantId, id, from, follow: true, signal: never })],
  ['WatchExecution', (id, from) => watcher.watch({ tenantId, id, from, signal: never })],
];
const never = new AbortController().signal;
const from = (attempt: number, stdout = 0): LogPosition => ({ attempt, stdout, stderr: 0 });

/** @returns how many bytes came, and whether the result did */
async function readAll(events: ReturnType<Reader>, onBytes = async () => {}): Promise<[number, boolean]> {
  let bytes = 0;
  let hasResult = false;
  for await (const event of events) {
    if (event.kind === 'result') hasResult = true;
    bytes += event.piece?.data.length ?? 0;
    await onBytes();
  }
  return [bytes, hasResult];
}

test.each(readers)('%s tells of a log that is deleted while it is read', async (_who, read) => {
  const id = await ended();
  expect((await readAll(read(id, from(2))))[0]).toBe(LOG_BYTES);
  await expect(readAll(read(id, from(2)), deleteAllLogs)).rejects.toMatchObject({
    code: 'not_found',
    message: expect.stringMatching(`^the log of ${id} was deleted at `),
  });
});

test.each(readers)('%s tells of a log that was deleted, of whatever attempt', async (_who, read) => {
  const id = await ended();
  await deleteAllLogs();
  for (const position of [from(0), from(1), from(2), from(2, LOG_BYTES - 1)]) {
    await expect(readAll(read(id, position))).rejects.toMatchObject({ code: 'not_found' });
  }
});

test('whoever has read all of a log that is deleted gets the result', async () => {
  const id = await ended();
  await deleteAllLogs();
  expect(await readAll(watcher.watch({ tenantId, id, from: from(2, LOG_BYTES), signal: never }))).toEqual([0, true]);
});

test('whoever passes over what was deleted gets the result, also when the log is deleted while it is read', async () => {
  const id = await ended();
  const watch = () => watcher.watch({ tenantId, id, from: from(1), passesOverDeleted: true, signal: never });
  expect(await readAll(watch())).toEqual([2 * LOG_BYTES, true]);
  const [bytes, hasResult] = await readAll(watch(), deleteAllLogs);
  expect(bytes).toBeGreaterThan(0);
  expect(bytes).toBeLessThan(LOG_BYTES);
  expect(hasResult).toBe(true);
  expect(await readAll(watch())).toEqual([0, true]);
});

test('whoever passes over what was deleted is told of what is missing', async () => {
  const id = await ended();
  await sql`DELETE FROM log_chunks WHERE execution_id = ${id} AND attempt = 1`;
  await expect(
    readAll(watcher.watch({ tenantId, id, from: from(1), passesOverDeleted: true, signal: never })),
  ).rejects.toMatchObject({ code: 'internal' });
});

test.each(readers)('%s tells which bytes are missing of either attempt', async (_who, read) => {
  const id = await ended();
  const gone = [sql`byte_offset = 100`, sql`byte_offset >= 100`];
  for (const attempt of [2, 1]) {
    for (const rows of gone) {
      await sql`DELETE FROM log_chunks WHERE execution_id = ${id} AND attempt = ${attempt} AND ${rows}`;
      await expect(readAll(read(id, from(attempt)))).rejects.toMatchObject({
        code: 'internal',
        message: `bytes 100 to ${LOG_BYTES} of the log of ${id} are missing`,
      });
    }
  }
});

// Of two writes that are under way when a control plane ends the second may be stored without the first, or both after the end.
test.each(readers)(
  '%s reads either attempt to its recorded end, whatever is stored behind that',
  async (_who, read) => {
    const id = await ended();
    const whole = [await readAll(read(id, from(1))), await readAll(read(id, from(2)))];
    for (const offset of [LOG_BYTES + 100, LOG_BYTES, LOG_BYTES - 1]) {
      const late = { tenantId, executionId: id, stream: Stream.STDOUT, offset, data: Buffer.alloc(CHUNK_BYTES, 'x') };
      await storeLogChunks(
        sql,
        [1, 2].map((attempt) => ({ ...late, attempt })),
      );
      expect([await readAll(read(id, from(1))), await readAll(read(id, from(2)))]).toEqual(whole);
    }
  },
);

test('bytes that have left memory and are not stored are missing, also while the attempt runs', async () => {
  const id = await insertExecution(sql, { tenant_id: tenantId, state: State.RUNNING, attempt: 1, agent_id: agentId });
  const stdout = new LogStream(100);
  stdout.append(100, Buffer.alloc(CHUNK_BYTES, 'x'));
  const log = { attempt: 1, stdout, stderr: new LogStream(0), changed: new ChangeSignal(), stream: () => stdout };
  const tracked = { log, changed: new ChangeSignal(), finished: false, current: { attempt: 1, agentId } };
  const following = new ExecutionWatcher({
    sql,
    tracker: { get: () => tracked },
  } as unknown as ExecutionWatcherOptions);
  const read = () => following.readLogs({ tenantId, id, from: from(1), follow: false, signal: never });
  const error = (first: number) => ({ message: `bytes ${first} to 100 of the log of ${id} are missing` });
  await expect(readAll(read())).rejects.toMatchObject(error(0));
  const chunk = { tenantId, executionId: id, attempt: 1, stream: Stream.STDOUT };
  await storeLogChunks(sql, [{ ...chunk, offset: 0, data: Buffer.alloc(CHUNK_BYTES, 'x') }]);
  await expect(readAll(read())).rejects.toMatchObject(error(CHUNK_BYTES));
  await storeLogChunks(sql, [{ ...chunk, offset: CHUNK_BYTES, data: Buffer.alloc(CHUNK_BYTES * 10, 'x') }]);
  expect((await readAll(read()))[0]).toBe(100 + CHUNK_BYTES);
});

test.each(readers)(
  '%s misses nothing of what was cancelled while it waited for another attempt',
  async (_who, read) => {
    const id = await insertExecution(sql, { tenant_id: tenantId, attempt: 1 });
    await sql`INSERT INTO attempts (tenant_id, execution_id, attempt, agent_id, state, stdout_bytes, stderr_bytes)
    VALUES (${tenantId}, ${id}, 1, ${agentId}, ${State.FAILED}, ${LOG_BYTES}, 0)`;
    await storeLog(id, 1);
    await sql`UPDATE executions SET state = ${State.CANCELLED}, end_time = now() WHERE id = ${id}`;
    expect((await readAll(read(id, from(1))))[0]).toBe(LOG_BYTES);
    await deleteAllLogs();
    await expect(readAll(read(id, from(1)))).rejects.toMatchObject({ code: 'not_found' });
  },
);

test.each(readers)('%s misses nothing of what never began', async (_who, read) => {
  const id = await insertExecution(sql, { tenant_id: tenantId });
  await sql`UPDATE executions SET state = ${State.CANCELLED}, end_time = now() WHERE id = ${id}`;
  for (const attempt of [0, 1]) expect((await readAll(read(id, from(attempt))))[0]).toBe(0);
});
