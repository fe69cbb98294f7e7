import { Code, ConnectError } from '@connectrpc/connect';
import { ExecutionService } from '@harrier/shared/gen/execution';
import { RetryInfoSchema } from '@harrier/shared/gen/google/rpc/error_details';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ApiServer, startApiServer } from './test-support/api-server.ts';
import { grpcClient } from './test-support/clients.ts';
import { createSampleServices } from './test-support/sample-services.ts';

let server: ApiServer;
let onEnded = () => {};
const HEADERS = { authorization: 'Bearer developer', 'content-type': 'application/json' };
const PADDING = 'x'.repeat(40 * 1024);

beforeAll(async () => {
  server = await startApiServer({
    services: createSampleServices({ onAborted: () => onEnded() }),
    limits: { maxBodiesBytes: 64 * 1024 },
  });
});
afterAll(() => server.close());

test('large requests are refused while those in progress fill the memory for them, and taken again afterwards', async () => {
  const first = new AbortController();
  const ended = new Promise<void>((resolve) => {
    onEnded = resolve;
  });
  const waiting = execute('wait', PADDING, first.signal).catch(() => undefined);
  const refused = await untilRefused();
  expect(refused.status).toBe(429);
  expect(refused.headers.get('retry-after')).toBe('1');
  expect(await refused.json()).toMatchObject({
    code: 'resource_exhausted',
    message: expect.stringContaining('of other requests in memory already'),
  });

  const rest = await fetch(`${server.url}/executions`, {
    method: 'POST',
    headers: HEADERS,
    body: body('echo', PADDING),
  });
  expect([rest.status, rest.headers.get('retry-after')]).toEqual([429, '1']);

  const client = grpcClient(ExecutionService, server.url);
  const request = { target: { case: 'module', value: 'echo' }, version: PADDING } as const;
  const error = await client.execute(request, { headers: HEADERS }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ConnectError);
  const refusal = error as ConnectError;
  expect(refusal.code).toBe(Code.ResourceExhausted);
  expect(refusal.metadata.get('grpc-retry-pushback-ms')).toBe('1000');
  expect(refusal.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBe(1n);

  expect((await execute('echo', '')).status).toBe(200);

  first.abort();
  await Promise.all([waiting, ended]);
  expect((await execute('echo', PADDING)).status).toBe(200);
});

/** The first call is known to be in progress when it leaves no room. */
async function untilRefused(): Promise<Response> {
  while (true) {
    const response = await execute('echo', PADDING);
    if (response.status !== 200) return response;
    await response.text();
  }
}

function execute(module: string, padding: string, signal: AbortSignal | null = null): Promise<Response> {
  const url = `${server.url}/harrier.v1.ExecutionService/Execute`;
  return fetch(url, { method: 'POST', headers: HEADERS, body: body(module, padding), signal });
}

function body(module: string, padding: string): string {
  return JSON.stringify({ module, inputJson: JSON.stringify({ padding }) });
}
