import { once } from 'node:events';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import { ExecuteRequestSchema, ExecuteResponseSchema } from '@harrier/shared/gen/execution';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, startApiServer } from '../test-support/api-server.ts';
import { EXECUTION_ID } from '../test-support/sample-services.ts';

let server: ApiServer;
beforeAll(async () => {
  server = await startApiServer();
});
afterAll(() => server.close());

const PATH = '/harrier.v1.ExecutionService/Execute';
const AUTHORIZATION = { authorization: 'Bearer developer' };

function messageTo(module: string): Uint8Array<ArrayBuffer> {
  const request = create(ExecuteRequestSchema, { target: { case: 'module', value: module } });
  return toBinary(ExecuteRequestSchema, request);
}

function envelope(message: Uint8Array, flags = 0, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** One gRPC call by hand: what a library would never send. */
async function callGrpc(body: Buffer, headers: Record<string, string> = {}) {
  const session = connectHttp2(server.url);
  const stream = session.request({
    ':method': 'POST',
    ':path': PATH,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...AUTHORIZATION,
    ...headers,
  });
  stream.end(body);
  const trailers = once(stream, 'trailers') as Promise<[IncomingHttpHeaders]>;
  const [header] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  const bytes = Buffer.concat((await stream.toArray()) as Buffer[]);
  const [trailer] = await trailers;
  session.close();
  return {
    header,
    bytes,
    status: Number(trailer['grpc-status']),
    message: decodeURIComponent(String(trailer['grpc-message'] ?? '')),
  };
}

describe('gRPC', () => {
  test.each([
    {},
    { 'content-type': 'application/grpc+proto' },
    { 'grpc-encoding': 'identity', 'grpc-accept-encoding': 'gzip' },
  ])('a call with %j is answered in one uncompressed message', async (headers) => {
    const { header, bytes, status } = await callGrpc(envelope(messageTo('echo')), headers as Record<string, string>);
    expect([status, header[':status'], header['content-type']]).toEqual([0, 200, 'application/grpc+proto']);
    expect(header['harrier-execution-id']).toBe(EXECUTION_ID);
    expect(bytes.readUInt32BE(1)).toBe(bytes.length - 5);
    expect(fromBinary(ExecuteResponseSchema, bytes.subarray(5)).execution?.module).toBe('echo');
  });

  test('a compressed message is taken', async () => {
    const body = envelope(gzipSync(messageTo('echo')), 1);
    expect((await callGrpc(body, { 'grpc-encoding': 'gzip' })).status).toBe(0);
  });

  test.each([
    ['no message', Buffer.alloc(0), Code.Unimplemented],
    ['half an envelope', Buffer.from([0, 0, 0]), Code.InvalidArgument],
    ['a message that ends early', envelope(messageTo('echo'), 0, 100), Code.InvalidArgument],
    ['two messages', Buffer.concat([envelope(messageTo('a')), envelope(messageTo('b'))]), Code.Unimplemented],
    ['a compressed message without its encoding', envelope(gzipSync(messageTo('a')), 1), Code.Internal],
    ['bytes that are no message', envelope(Buffer.from([0xff, 0xff])), Code.InvalidArgument],
  ])('%s is refused', async (_name, body, code) => {
    const { header, status, message } = await callGrpc(body);
    expect([header[':status'], status]).toEqual([200, code]);
    expect(message).not.toBe('');
  });

  test.each(['soon', '1', '999999999S', '100000000H'])('the deadline %j is refused', async (timeout) => {
    expect((await callGrpc(envelope(messageTo('echo')), { 'grpc-timeout': timeout })).status).toBe(
      Code.InvalidArgument,
    );
  });

  test('an error keeps the headers that the service set', async () => {
    const { header, status } = await callGrpc(envelope(messageTo('wait')), { 'grpc-timeout': '20m' });
    expect([header['harrier-execution-id'], status]).toEqual([EXECUTION_ID, Code.DeadlineExceeded]);
  });
});

describe('Connect', () => {
  function post(body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string>): Promise<Response> {
    return fetch(server.url + PATH, { method: 'POST', body, headers: { ...AUTHORIZATION, ...headers } });
  }

  test.each(['application/json', 'application/json; charset=utf-8', 'application/json;charset=UTF-8'])(
    '%s is JSON',
    async (type) => {
      const response = await post('{"module": "echo"}', { 'content-type': type });
      expect(response.headers.get('harrier-execution-id')).toBe(EXECUTION_ID);
      expect(await response.json()).toMatchObject({ execution: { module: 'echo' } });
    },
  );

  test('a compressed body is taken', async () => {
    const body = new Uint8Array(gzipSync('{"module": "echo"}'));
    const response = await post(body, { 'content-type': 'application/json', 'content-encoding': 'gzip' });
    expect([response.status, response.headers.get('content-encoding')]).toEqual([200, null]);
  });

  test('a body that grows too large when it is decompressed is refused', async () => {
    const body = new Uint8Array(gzipSync(`{"inputJson": "${'x'.repeat(9 * 1024 * 1024)}"}`));
    const response = await post(body, { 'content-type': 'application/json', 'content-encoding': 'gzip' });
    expect(await response.json()).toMatchObject({ code: 'resource_exhausted' });
  });

  test('a binary body that is no message is refused', async () => {
    const response = await post(Uint8Array.from([0xff, 0xff]), { 'content-type': 'application/proto' });
    expect([response.status, await response.json()]).toMatchObject([400, { code: 'invalid_argument' }]);
  });

  test('an error keeps the headers that the service set', async () => {
    const headers = { 'content-type': 'application/json', 'connect-timeout-ms': '20' };
    const response = await post('{"module": "wait"}', headers);
    expect([response.status, response.headers.get('harrier-execution-id')]).toEqual([504, EXECUTION_ID]);
  });
});
