import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { LogChunk_Stream } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { startApiServer } from './test-support/api-server.ts';
import { openRaw } from './test-support/raw-connection.ts';
import { createSampleServices, EXECUTION_ID } from './test-support/sample-services.ts';

const LOGS = `/executions/${EXECUTION_ID}/logs`;
const CHUNK = new Uint8Array(64 * 1024);

/** A server whose log never ends, and how much of it was asked for. */
async function startEndless() {
  const services = createSampleServices();
  const { promise: stopped, resolve: onStopped } = Promise.withResolvers<void>();
  const log = { bytes: 0, stopped };
  services.execution.readLogs = async function* () {
    try {
      for (;;) {
        yield { chunk: { stream: LogChunk_Stream.STDOUT, offset: BigInt(log.bytes), data: CHUNK, attempt: 1 } };
        log.bytes += CHUNK.length;
      }
    } finally {
      onStopped();
    }
  };
  const server = await startApiServer({ services });
  /** The server has had many turns in which it could have written on. */
  const turns = async () => {
    for (let i = 0; i < 50; i++) await (await fetch(`${server.url}/healthz`)).text();
  };
  const untilStuck = async () => {
    let before = -1;
    while (before !== log.bytes) {
      before = log.bytes;
      await turns();
    }
    return before;
  };
  return { server, log, untilStuck };
}

const ENVELOPED_REQUEST = Buffer.from(`\0\0\0\0\x28\n\x24${EXECUTION_ID}`, 'latin1');
ENVELOPED_REQUEST.writeUInt32BE(ENVELOPED_REQUEST.length - 5, 1);

test('a reader over HTTP/1.1 that stops reading stops the log, and only its own', async () => {
  const { server, log, untilStuck } = await startEndless();
  const socket = await openRaw(server.port);
  socket.write(`GET ${LOGS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer viewer\r\n\r\n`);
  await once(socket, 'readable');
  const bytes = await untilStuck();
  expect(bytes).toBeGreaterThan(0);
  expect(bytes).toBeLessThan(64 * 1024 * 1024);
  socket.destroy();
  await log.stopped;
  await server.close();
});

test.each([
  ['REST', { ':path': LOGS }, undefined],
  [
    'gRPC',
    { ':path': '/harrier.v1.ExecutionService/ReadLogs', ':method': 'POST', 'content-type': 'application/grpc' },
    ENVELOPED_REQUEST,
  ],
])('a reader over HTTP/2 that stops reading stops the log: %s', async (_name, headers, body) => {
  const { server, log, untilStuck } = await startEndless();
  const session = connectHttp2(server.url);
  const stream = session.request({ ...headers, authorization: 'Bearer viewer' }, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  stream.pause();
  const [answer] = (await once(stream, 'response')) as [Record<string, unknown>];
  expect(answer[':status']).toBe(200);
  expect(await untilStuck()).toBeLessThan(64 * 1024 * 1024);
  stream.close();
  await log.stopped;
  session.close();
  await server.close();
});
