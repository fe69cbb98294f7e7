import { once } from 'node:events';
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { pino } from 'pino';
import { afterEach, describe, expect, test } from 'vitest';
import type { HttpHandler, HttpResponse } from '../http-types.ts';
import { exchange, openRaw, readUntilClosed } from '../test-support/raw-connection.ts';
import { createTlsFiles } from '../test-support/tls-files.ts';
import { createListener, type Listener, type ListenerOptions } from './listener.ts';

const listeners: Listener[] = [];
afterEach(async () => {
  await Promise.all(listeners.splice(0).map((listener) => listener.close(0)));
});

const answerVersion: HttpHandler = (request, response) => {
  request.resume();
  response.end(`HTTP/${request.httpVersion}`);
};

async function start(options: Partial<ListenerOptions> = {}): Promise<{ listener: Listener; port: number }> {
  const logger = pino({ level: 'silent' });
  const listener = createListener({ host: '127.0.0.1', port: 0, handler: answerVersion, logger, ...options });
  const { port } = await listener.listen();
  listeners.push(listener);
  return { listener, port };
}

async function textOf(stream: AsyncIterable<unknown>): Promise<string> {
  let text = '';
  for await (const chunk of stream) text += String(chunk);
  return text;
}

async function getHttp2(authority: string, options: { ca?: Buffer } = {}): Promise<string> {
  const session = connectHttp2(authority, options);
  const stream = session.request({ ':path': '/' });
  const text = await textOf(stream.setEncoding('utf8'));
  session.close();
  return text;
}

/** Holds every request until `release` is called. */
function createHeldHandler() {
  const { promise: received, resolve: onReceived } = Promise.withResolvers<HttpResponse>();
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const handler: HttpHandler = (_request, response) => {
    onReceived(response);
    void released.then(() => response.end('finished'));
  };
  return { handler, received, release };
}

describe('one port', () => {
  test('speaks HTTP/1.1 and HTTP/2', async () => {
    const { port } = await start();
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('HTTP/1.1');
    expect(await getHttp2(`http://127.0.0.1:${port}`)).toBe('HTTP/2.0');
  });

  test('HTTP/1.1 that arrives byte by byte is understood', async () => {
    const { port } = await start();
    const socket = await openRaw(port);
    const answer = readUntilClosed(socket);
    for (const char of 'POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n') {
      socket.write(char);
      await new Promise(setImmediate);
    }
    expect(await answer).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  test('an HTTP/2 preface that arrives byte by byte opens a session', async () => {
    const { port } = await start();
    const socket = await openRaw(port);
    for (const char of 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n') {
      socket.write(char);
      await new Promise(setImmediate);
    }
    socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
    const [settings] = (await once(socket, 'data')) as [Buffer];
    // The fourth byte of a frame is its type: SETTINGS.
    expect(settings[3]).toBe(4);
    socket.destroy();
  });

  test('closes a connection that says nothing', async () => {
    const { port } = await start({ limits: { firstBytesTimeoutMs: 20 } });
    expect(await readUntilClosed(await openRaw(port))).toBe('');
  });

  test('closes a connection that stops in the middle of the preface', async () => {
    const { port } = await start({ limits: { firstBytesTimeoutMs: 20 } });
    expect(await exchange(port, 'PRI * HT')).toBe('');
  });

  test('a client that hangs up before it says anything does no harm', async () => {
    const { port } = await start();
    const socket = await openRaw(port);
    socket.resetAndDestroy();
    expect(await getHttp2(`http://127.0.0.1:${port}`)).toBe('HTTP/2.0');
  });

  test('what is not HTTP is told so', async () => {
    const { port } = await start();
    const answer = await exchange(port, 'hello\r\n\r\n');
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request/);
    expect(answer).toContain('"code":"invalid_argument"');
  });

  test('a head that is too large is refused', async () => {
    const { port } = await start({ limits: { maxHeaderBytes: 1024 } });
    const answer = await exchange(port, `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(2048)}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
    expect(answer).toContain('"code":"resource_exhausted"');
  });

  test('a head that does not end in time is refused', async () => {
    const { port } = await start({ limits: { headersTimeoutMs: 30, requestTimeoutMs: 60 } });
    const answer = await exchange(port, 'GET / HTTP/1.1\r\nHost: a\r\n');
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
  });

  test('a second listener for gRPC only refuses HTTP/1.1', async () => {
    const { port } = await start({ grpcOnly: true });
    expect(await exchange(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).toMatch(/^HTTP\/1\.1 505 /);
    expect(await getHttp2(`http://127.0.0.1:${port}`)).toBe('HTTP/2.0');
  });

  test('a port that is taken is an error', async () => {
    const { port } = await start();
    await expect(start({ port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });
});

describe('upgrade', () => {
  const UPGRADE = 'GET /link HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade:';

  test('a WebSocket upgrade is handed over with its socket', async () => {
    const { port } = await start({
      upgrade: (request, socket) => socket.end(`HTTP/1.1 101 Switching Protocols\r\n\r\n${request.url}`),
    });
    expect(await exchange(port, `${UPGRADE} WebSocket\r\n\r\n`)).toBe('HTTP/1.1 101 Switching Protocols\r\n\r\n/link');
  });

  test('an upgrade to h2c is answered as HTTP/1.1', async () => {
    const { port } = await start({ upgrade: () => expect.unreachable() });
    const answer = await exchange(port, `${UPGRADE} h2c\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK/);
  });
});

describe('TLS', () => {
  test('ALPN chooses between HTTP/1.1 and HTTP/2', async () => {
    const files = await createTlsFiles();
    const { port } = await start({ tls: files });
    const request = httpsRequest({ port, host: '127.0.0.1', ca: files.cert, agent: false }).end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect(await textOf(response)).toBe('HTTP/1.1');
    expect(await getHttp2(`https://127.0.0.1:${port}`, { ca: files.cert })).toBe('HTTP/2.0');
    expect(await exchange(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).not.toContain('200 OK');
    await files.remove();
  });

  test('a file that cannot be read is named', async () => {
    await expect(start({ tls: { certFile: '/nowhere/cert.pem', keyFile: '/nowhere/key.pem' } })).rejects.toThrow(
      'cannot read the TLS file /nowhere/',
    );
  });
});

describe('close', () => {
  test('finishes what is in flight over HTTP/1.1, then closes its connection', async () => {
    const { handler, received, release } = createHeldHandler();
    const { listener, port } = await start({ handler });
    const agent = new Agent({ keepAlive: true });
    const request = httpRequest({ port, host: '127.0.0.1', agent }).end();
    await received;
    const closed = listener.close(60_000);
    release();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect(response.headers.connection).toBe('close');
    expect(await textOf(response)).toBe('finished');
    await closed;
    agent.destroy();
  });

  test('closes a connection whose response had begun before', async () => {
    const { handler, received, release } = createHeldHandler();
    const { listener, port } = await start({ handler });
    const answer = exchange(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    (await received).flushHeaders();
    const closed = listener.close(60_000);
    release();
    await closed;
    expect(await answer).toContain('finished');
  });

  test('finishes what is in flight over HTTP/2 after telling the client to go away', async () => {
    const { handler, received, release } = createHeldHandler();
    const { listener, port } = await start({ handler });
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    const goaway = once(session, 'goaway');
    const stream = session.request({ ':path': '/' });
    await received;
    const closed = listener.close(60_000);
    await goaway;
    release();
    expect(await textOf(stream.setEncoding('utf8'))).toBe('finished');
    await closed;
  });

  test('closes idle connections at once', async () => {
    const { listener, port } = await start();
    const silent = readUntilClosed(await openRaw(port));
    const idle = await openRaw(port);
    const idleText = readUntilClosed(idle);
    idle.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await once(idle, 'data');
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    await once(session, 'remoteSettings');
    await listener.close(60_000);
    expect(await silent).toBe('');
    expect(await idleText).toContain('HTTP/1.1');
  });

  test('destroys what does not finish within the grace', async () => {
    const { handler, received } = createHeldHandler();
    const { listener, port } = await start({ handler });
    const answer = exchange(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await received;
    await listener.close(10);
    expect(await answer).toBe('');
  });

  test('accepts no further connection', async () => {
    const { listener, port } = await start();
    await listener.close(0);
    await expect(openRaw(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});
