import { createPublicKey, verify } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { LINK_SUBPROTOCOL, LinkCodec, MAX_FRAME_BYTES, signedBytes } from '@harrier/shared';
import {
  type AgentMessage,
  AgentMessageSchema,
  type Challenge,
  Goodbye_Code as Code,
  HelloSchema,
  type ServerMessage,
  type Welcome,
} from '@harrier/shared/gen/link';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { AgentIdentity } from '../identity/agent-identity.ts';
import { LinkServer, type ServerSide } from '../test-support/link-server.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { AgentLink } from './agent-link.ts';
import { LINK_TIMINGS, type LinkTimings } from './link-timings.ts';

const QUICK: LinkTimings = { ...LINK_TIMINGS, switchJitterMs: 1, backoff: { initialMs: 1, maxMs: 5, multiplier: 2 } };

function openLink(
  urls: string | [string, ...string[]],
  timings: Partial<LinkTimings> = {},
  patienceMs = Number.POSITIVE_INFINITY,
) {
  const identity = AgentIdentity.open(tempDir());
  const gaveUp = Promise.withResolvers<string>();
  const events = {
    onDial: vi.fn(),
    onHello: vi.fn(),
    onUp: vi.fn<(welcome: Welcome) => void>(),
    onDown: vi.fn(),
    onMessage: vi.fn<(message: ServerMessage) => void>(),
    onCongestion: vi.fn<(congested: boolean) => void>(),
    onGiveUp: gaveUp.resolve,
  };
  const createHello = ({ nonce }: Challenge, dial: number) =>
    create(HelloSchema, {
      dial: BigInt(dial),
      publicKey: identity.publicKey,
      signature: identity.sign(signedBytes(nonce, identity.publicKey)),
    });
  const link = new AgentLink({
    urls: typeof urls === 'string' ? [urls] : urls,
    timings: { ...QUICK, ...timings },
    patienceMs: () => patienceMs,
    createHello,
    events,
    logger: silentLogger(),
  });
  link.open();
  onTestFinished(() => link.close());
  return { link, events, identity, gaveUp: gaveUp.promise };
}

function progress(step: string): AgentMessage {
  return create(AgentMessageSchema, { message: { case: 'progress', value: { progress: { percent: 1, step } } } });
}

function frameOfNumber(number: number): Uint8Array {
  const codec = new LinkCodec('server');
  let frame: Uint8Array | undefined;
  for (let count = 0; count < number; count++) [frame] = codec.encode([]);
  return frame ?? new Uint8Array(0);
}

describe('the handshake', () => {
  test('answers the challenge with a signature that proves the key', async () => {
    const server = await LinkServer.start();
    const { identity, link, events } = openLink(server.url);
    const side = await server.connection();
    expect(side.socket.protocol).toBe(LINK_SUBPROTOCOL);
    expect(link.linked).toBe(false);
    const hello = await side.welcome('agent-9');
    const x = Buffer.from(identity.publicKey).toString('base64url');
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
    const signed = Buffer.concat([Buffer.from('harrier.link.v1\0'), side.nonce, hello.publicKey]);
    expect(verify(null, signed, key, hello.signature)).toBe(true);
    await vi.waitFor(() => expect(link.linked).toBe(true));
    expect(events.onUp.mock.calls[0]?.[0].agentId).toBe('agent-9');
  });

  test('that does not end in time is tried again', async () => {
    const server = await LinkServer.start();
    const { link } = openLink(server.url, { handshakeMs: 1_000 });
    await (await server.connection()).closed;
    const second = await server.connection();
    await second.welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
  });

  test('takes no longer than there is patience, whatever the timings allow', async () => {
    const server = await LinkServer.start();
    // Beyond the time that a test may take.
    const { link } = openLink(server.url, { handshakeMs: 3_600_000 }, 1_000);
    await (await server.connection()).closed;
    await (await server.connection()).welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
  });

  test('with a message before the welcome ends the session', async () => {
    const server = await LinkServer.start();
    openLink(server.url);
    const side = await server.connection();
    side.send({ case: 'drain', value: { draining: true } });
    expect(await side.closed).toBe(1002);
  });

  test('is sought until the control plane is there', async () => {
    const { link } = openLink('ws://127.0.0.1:1/agent/v1/link');
    await link.close();
    expect(link.linked).toBe(false);
  });
});

describe('a link', () => {
  test('carries messages both ways in order, those of one turn in one frame', async () => {
    const server = await LinkServer.start();
    const { link, events } = openLink(server.url);
    const side = await server.connection();
    await side.welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
    const before = side.frames;
    link.send(progress('one'));
    link.send(progress('two'));
    expect((await side.next('progress')).progress?.step).toBe('one');
    expect((await side.next('progress')).progress?.step).toBe('two');
    expect(side.frames - before).toBe(1);
    side.send({ case: 'drain', value: { draining: true } }, { case: 'drain', value: { draining: false } });
    await vi.waitFor(() => expect(events.onMessage).toHaveBeenCalledTimes(2));
    expect(
      events.onMessage.mock.calls.map(([{ message }]) => message.case === 'drain' && message.value.draining),
    ).toEqual([true, false]);
  });

  test('comes back after it broke, and drops what is sent meanwhile', async () => {
    const server = await LinkServer.start();
    const { link, events } = openLink(server.url);
    const first = await server.connection();
    await first.welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
    first.socket.terminate();
    await vi.waitFor(() => expect(events.onDown).toHaveBeenCalledTimes(1));
    link.send(progress('lost'));
    const second = await server.connection();
    await second.welcome();
    await vi.waitFor(() => expect(events.onUp).toHaveBeenCalledTimes(2));
    link.send(progress('kept'));
    expect((await second.next('progress')).progress?.step).toBe('kept');
  });

  test('that hears nothing is dead', async () => {
    const server = await LinkServer.start();
    const { events } = openLink(server.url, { pingIntervalMs: 5, silenceMs: 20 });
    const side = await server.connection();
    await side.welcome();
    side.socket.pause();
    await vi.waitFor(() => expect(events.onDown).toHaveBeenCalledTimes(1));
    expect(await server.connection()).toBeDefined();
  });

  test('that is idle is kept alive by pings', async () => {
    const server = await LinkServer.start();
    const { events } = openLink(server.url, { pingIntervalMs: 5, silenceMs: 30_000 });
    const side = await server.connection();
    await side.welcome();
    for (let pings = 0; pings < 5; pings++) await new Promise((resolve) => side.socket.once('ping', resolve));
    expect(events.onDown).not.toHaveBeenCalled();
  });

  test.each([
    ['a gap', () => frameOfNumber(9)],
    ['bytes that are no frame', () => Buffer.from('no frame')],
    ['a text message', () => 'text'],
  ])('is closed by %s', async (_, damage) => {
    const server = await LinkServer.start();
    openLink(server.url);
    const side = await server.connection();
    await side.welcome();
    side.socket.send(damage());
    expect(await side.closed).toBe(1002);
    expect(await server.connection()).toBeDefined();
  });

  test('is closed by a frame that is too large', async () => {
    const server = await LinkServer.start();
    openLink(server.url);
    const side = await server.connection();
    await side.welcome();
    side.socket.send(Buffer.alloc(MAX_FRAME_BYTES + 1));
    await side.closed;
    expect(await server.connection()).toBeDefined();
  });

  test('passes over a frame that it has seen', async () => {
    const server = await LinkServer.start();
    const { events } = openLink(server.url);
    const side = await server.connection();
    await side.welcome();
    side.send({ case: 'drain', value: { draining: true } });
    for (const frame of side.sent) side.socket.send(frame);
    side.send({ case: 'drain', value: { draining: false } });
    await vi.waitFor(() => expect(events.onMessage).toHaveBeenCalledTimes(2));
    expect(events.onUp).toHaveBeenCalledTimes(1);
  });

  test('tells when the network does not take what is sent, and when it does again', async () => {
    const server = await LinkServer.start();
    const { link, events } = openLink(server.url);
    const side = await server.connection();
    await side.welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
    side.socket.pause();
    const data = new Uint8Array(64 * 1024);
    const log = create(AgentMessageSchema, { message: { case: 'log', value: { data } } });
    const fill = setInterval(() => {
      for (let count = 0; count < 64; count++) link.send(log);
    });
    await vi.waitFor(() => expect(events.onCongestion).toHaveBeenCalledWith(true));
    clearInterval(fill);
    side.socket.resume();
    await vi.waitFor(() => expect(events.onCongestion).toHaveBeenLastCalledWith(false));
  });
});

describe('a goodbye', () => {
  test.each([
    [Code.REVOKED, 'has deleted this agent: by an operator'],
    [Code.REFUSED, 'refused this agent: by an operator'],
    [Code.REPLACED, 'another process has linked with the identity of this agent: by an operator'],
  ])('with code %s is the end', async (code, reason) => {
    const server = await LinkServer.start();
    const { gaveUp, link } = openLink(server.url);
    const side = await server.connection();
    await side.welcome();
    side.send({ case: 'goodbye', value: { code, message: 'by an operator' } });
    expect(await gaveUp).toContain(reason);
    expect(await side.closed).toBe(1000);
    expect(link.linked).toBe(false);
  });

  test('may come instead of a welcome', async () => {
    const server = await LinkServer.start();
    const { gaveUp } = openLink(server.url);
    const side = await server.connection();
    side.send({ case: 'challenge', value: { nonce: side.nonce } });
    await side.next('hello');
    side.send({ case: 'goodbye', value: { code: Code.REFUSED, message: 'the token has expired' } });
    side.socket.close();
    expect(await gaveUp).toContain('the token has expired');
  });

  test.each([Code.SHUTDOWN, Code.PROTOCOL_ERROR])('with code %s is followed by a new link', async (code) => {
    const server = await LinkServer.start();
    openLink(server.url);
    const first = await server.connection();
    await first.welcome();
    first.send({ case: 'goodbye', value: { code } });
    const second = await server.connection();
    await second.welcome();
  });
});

test('each hello has the number of the try that it belongs to, also when tries in between came to nothing', async () => {
  const server = await LinkServer.start();
  openLink(server.url);
  const numbers: bigint[] = [];
  for (let count = 0; count < 3; count++) {
    const side = await server.connection();
    if (count === 1) side.socket.terminate();
    else {
      numbers.push((await side.welcome()).dial);
      side.socket.terminate();
    }
  }
  expect(numbers).toEqual([1n, 3n]);
});

test('a control plane is sought more often while there is something to lose', async () => {
  const server = await LinkServer.start();
  const { link } = openLink(server.url, { backoff: { initialMs: 3_600_000, maxMs: 3_600_000, multiplier: 1 } }, 1);
  (await server.connection()).socket.terminate();
  await (await server.connection()).welcome();
  await vi.waitFor(() => expect(link.linked).toBe(true));
});

describe('of several control planes', () => {
  const NEVER = { initialMs: 3_600_000, maxMs: 3_600_000, multiplier: 1 };

  test('the next one is dialled at once after a failure', async () => {
    const server = await LinkServer.start();
    const { link } = openLink(['ws://127.0.0.1:1/agent/v1/link', server.url], { backoff: NEVER });
    await (await server.connection()).welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
  });

  test.each([
    ['breaks', (side: ServerSide) => side.socket.terminate()],
    ['stops', (side: ServerSide) => side.send({ case: 'goodbye', value: { code: Code.SHUTDOWN } })],
  ])('the next one is dialled at once when one %s', async (_, end) => {
    const [first, second] = [await LinkServer.start(), await LinkServer.start()];
    openLink([first.url, second.url], { backoff: NEVER });
    const side = await first.connection();
    await side.welcome();
    end(side);
    await (await second.connection()).welcome();
  });

  test('the next one is dialled when a link is left', async () => {
    const [first, second] = [await LinkServer.start(), await LinkServer.start()];
    const { link, events } = openLink([first.url, second.url], { backoff: NEVER });
    await (await first.connection()).welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
    link.leave('it renews nothing');
    await (await second.connection()).welcome();
    await vi.waitFor(() => expect(events.onUp).toHaveBeenCalledTimes(2));
    expect(events.onDown).toHaveBeenCalledTimes(1);
  });
});

describe('closing', () => {
  test('sends what is pending first, and does not come back', async () => {
    const server = await LinkServer.start();
    const { link } = openLink(server.url);
    const side = await server.connection();
    await side.welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
    link.send(progress('last words'));
    await link.close();
    expect((await side.next('progress')).progress?.step).toBe('last words');
    expect(await side.closed).toBe(1000);
  });

  test('does not wait for a control plane that does not answer', async () => {
    const server = await LinkServer.start();
    const { link } = openLink(server.url, { closeMs: 10 });
    const side = await server.connection();
    await side.welcome();
    await vi.waitFor(() => expect(link.linked).toBe(true));
    side.socket.pause();
    await link.close();
    expect(link.linked).toBe(false);
  });
});
