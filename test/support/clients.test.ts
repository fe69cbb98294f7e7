import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, createServer, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { Code } from '@connectrpc/connect';
import { expect, test } from 'vitest';
import { Clients } from './clients.ts';

test('a call that is made as soon as the server has closed an idle connection goes over a new one', async () => {
  const ends: ServerHttp2Session[] = [];
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/grpc', 'grpc-status': '5' });
    response.end();
  });
  server.on('session', (session) => ends.push(session));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const sessions = new Set<ClientHttp2Session>();
  const opened = (message: unknown) => {
    const { session } = (message as { stream: ClientHttp2Stream }).stream;
    if (session !== undefined) sessions.add(session as ClientHttp2Session);
  };
  subscribe('http2.client.stream.created', opened);
  const clients = new Clients(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, 'key');
  try {
    const call = () => clients.agents.listAgents({}).catch(({ code }) => code);
    expect(await call()).toBe(Code.NotFound);
    const [idle] = sessions;
    // Not by `once`, which listens for errors too.
    const closed = new Promise((resolve) => idle?.once('close', resolve));
    const again = new Promise((resolve) => idle?.once('goaway', () => queueMicrotask(() => resolve(call()))));
    ends[0]?.goaway();
    expect(await again).toBe(Code.NotFound);
    expect(sessions).toHaveLength(2);
    await closed;
  } finally {
    unsubscribe('http2.client.stream.created', opened);
    clients.close();
    server.close();
    for (const end of ends) end.destroy();
  }
});
