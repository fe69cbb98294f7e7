import { randomUUID } from 'node:crypto';
import { Code, ConnectError } from '@connectrpc/connect';
import { ExecutionService, Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import { Access_Role } from '@harrier/shared/gen/options';
import { expect, test } from 'vitest';
import { finishExecutions } from '../db/queries/finish-executions.ts';
import { storeLogChunks } from '../db/queries/log-chunks.ts';
import { deleteLogs } from '../db/queries/retention.ts';
import type { ExecutionService as Executions } from '../service/execution-service.ts';
import { ExecutionWatcher, type ExecutionWatcherOptions } from '../service/execution-watcher.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../test-support/stored-executions.ts';
import { createExecutionApi } from './execution-api.ts';
import { startApiServer } from './test-support/api-server.ts';
import { as, collect, grpcClient } from './test-support/clients.ts';
import { createSampleServices } from './test-support/sample-services.ts';

const { cold: sql } = await startDatabase();
const tenantId = randomUUID();
const agentId = randomUUID();
await sql`INSERT INTO tenants (id, name) VALUES (${tenantId}, 'tenant')`;
const watcher = new ExecutionWatcher({
  sql,
  tracker: { get: () => undefined },
  bound: { enter: () => () => undefined },
} as unknown as ExecutionWatcherOptions);

const LOG = Buffer.from('printed\n');

/** An execution that has ended and has printed something. */
async function ended(): Promise<string> {
  const id = await insertExecution(sql, { tenant_id: tenantId, state: State.RUNNING, attempt: 1, agent_id: agentId });
  await storeLogChunks(sql, [{ tenantId, executionId: id, attempt: 1, stream: Stream.STDOUT, offset: 0, data: LOG }]);
  await finishExecutions(sql, [
    finishedRow({ id, tenant_id: tenantId, agent_id: agentId, output_json: '{"n":1}', stdout_bytes: LOG.length }),
  ]);
  return id;
}

test('ExecuteStream made again gets the result of what has ended, also when its log has been deleted', async () => {
  const id = await ended();
  const accepted = { accept: async () => ({ id, tracked: undefined }) } as unknown as Executions;
  const server = await startApiServer({
    services: { ...createSampleServices(), execution: createExecutionApi(accepted, watcher) },
    authenticate: async () => ({ tenantId, role: Access_Role.DEVELOPER, keyId: 'key' }),
  });
  const client = grpcClient(ExecutionService, server.url);
  const again = async () => {
    const request = { target: { case: 'module', value: 'prints' }, idempotencyKey: 'once' } as const;
    return (await collect(client.executeStream(request, as('developer')))).map(({ event }) => event);
  };
  const result = { case: 'result', value: { id, output: { n: 1 }, stdoutBytes: BigInt(LOG.length) } };
  expect(await again()).toMatchObject([{ case: 'log', value: { offset: 0n } }, result]);
  const after = '00000000-0000-0000-0000-000000000000';
  await deleteLogs(sql, { tenantId, olderThanMs: 0, after, limit: 1_000, maxLogBytes: Number.MAX_SAFE_INTEGER });
  expect(await again()).toMatchObject([result]);
  // Whoever asks for bytes is told.
  for (const asked of [client.watchExecution({ id }, as('developer')), client.readLogs({ id }, as('developer'))]) {
    const error = await collect<unknown>(asked).catch(ConnectError.from);
    expect(error).toMatchObject({ code: Code.NotFound });
  }
  await server.close();
});
