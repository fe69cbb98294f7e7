import { randomBytes } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Goodbye_Code as Goodbye, LinkFrameSchema } from '@harrier/shared/gen/link';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { create as createExecution, execute, get } from '../support/executions.ts';
import { RawIdentity, RawLink } from '../support/raw-link.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until, within } from '../support/wait.ts';

const stack = await startStack();
const { controlPlane, executions } = stack;
const { url } = controlPlane;
const links: RawLink[] = [];
const quick = { ...code('def handler(input):\n    return {"done": True}\n') };

afterEach(async () => {
  for (const link of links.splice(0)) {
    link.close();
    await within('the close of the link', link.closed);
  }
  // Whatever a stranger did: the agents that are there go on.
  expect(await execute(executions, { ...quick, agentSelector: '!raw' })).toMatchObject({ state: State.SUCCEEDED });
});

function open(): RawLink {
  const link = RawLink.open(url);
  links.push(link);
  return link;
}

async function join(
  identity = new RawIdentity(),
  labels: Record<string, string> = { raw: 'yes' },
  hello: Parameters<typeof RawLink.join>[2] = {},
): Promise<[RawLink, RawIdentity]> {
  const joinToken = identity.agentId === '' ? await controlPlane.joinToken() : '';
  const link = await RawLink.join(url, identity, { joinToken, labels, name: `raw-${links.length}`, ...hello });
  links.push(link);
  return [link, identity];
}

async function expectGoodbye(link: RawLink, goodbye: number, message: string | RegExp): Promise<void> {
  const told = await link.next('goodbye');
  expect(told.message).toMatch(message);
  expect(told.code).toBe(goodbye);
  expect(await within('the close of the link', link.closed)).toMatchObject({ code: 4000 + goodbye });
}

describe('what is not the protocol ends the link with a reason', () => {
  test('a text frame', async () => {
    const link = open();
    await link.next('challenge');
    link.socket.send('hello');
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, 'text frame');
  });

  test('bytes that are no frame', async () => {
    const link = open();
    await link.next('challenge');
    link.socket.send(Buffer.concat([Buffer.from([0xff, 0xff, 0xff, 0xff]), randomBytes(200)]));
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, 'cannot be decoded');
  });

  test('an empty frame', async () => {
    const link = open();
    await link.next('challenge');
    link.socket.send(Buffer.alloc(0));
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, /frame 0 came after frame 0|no body/);
  });

  test('a gap in the sequence', async () => {
    const [link] = await join();
    link.frames({ case: 'heartbeat', value: {} });
    link.send({ case: 'heartbeat', value: {} });
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, /frame 3 came after frame 1/);
  });

  test('an acknowledgement of what was never sent', async () => {
    const [link] = await join();
    const frame = create(LinkFrameSchema, { sequence: 2n, acknowledged: 99n, body: { case: 'agent', value: {} } });
    link.socket.send(toBinary(LinkFrameSchema, frame));
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, 'only');
  });

  test('a frame of the other side', async () => {
    const [link] = await join();
    const frame = create(LinkFrameSchema, { sequence: 2n, acknowledged: 0n, body: { case: 'server', value: {} } });
    link.socket.send(toBinary(LinkFrameSchema, frame));
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, '"server" came, not "agent"');
  });

  test('a frame of more than 1 MiB', async () => {
    const link = open();
    await link.next('challenge');
    link.socket.send(Buffer.alloc(1024 * 1024 + 1));
    // 1009: message too big (RFC 6455, section 7.4.1).
    expect(await within('the close of the link', link.closed)).toMatchObject({ code: 1009 });
  });

  test('a fragment before the welcome, of a hello too', async () => {
    const link = open();
    await link.next('challenge');
    const body = { case: 'fragment', value: { data: new Uint8Array(10), last: false } } as const;
    link.socket.send(toBinary(LinkFrameSchema, create(LinkFrameSchema, { sequence: 1n, body })));
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, 'a batch in fragments came before the welcome');
  });

  test('a batch of fragments that never ends', async () => {
    const [link] = await join();
    const data = new Uint8Array(1024 * 1024 - 64);
    for (let sequence = 2n; sequence < 20n; sequence++) {
      const frame = create(LinkFrameSchema, { sequence, body: { case: 'fragment', value: { data, last: false } } });
      link.socket.send(toBinary(LinkFrameSchema, frame));
    }
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, 'larger than');
  });

  test('something else than hello as the first message', async () => {
    const link = open();
    await link.next('challenge');
    link.send({ case: 'heartbeat', value: {} });
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, '"heartbeat" came before the welcome');
  });

  test('a second hello', async () => {
    const [link, identity] = await join();
    link.send({ case: 'hello', value: { agentId: identity.agentId } });
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, 'a second hello');
  });

  test('a log with a gap', async () => {
    const [link] = await join(undefined, { raw: 'gap' });
    const id = await createExecution(executions, {
      ...quick,
      agentSelector: 'raw=gap',
      retryPolicy: { maxAttempts: 1 },
    });
    const { ref } = await link.next('assignment');
    link.send({ case: 'started', value: { ...(ref && { ref }) } });
    link.send({ case: 'log', value: { ...(ref && { ref }), stream: 1, offset: 5n, data: Buffer.from('x') } });
    await expectGoodbye(link, Goodbye.PROTOCOL_ERROR, 'bytes from 0 are missing');
    await executions.cancelExecution({ id });
  });
});

describe('a hello is refused', () => {
  test('with a join token that nobody made', async () => {
    const link = open();
    await link.sayHello(new RawIdentity(), { joinToken: 'hj_nobody' });
    await expectGoodbye(link, Goodbye.REFUSED, 'the join token is unknown, expired or used');
  });

  test('with a join token that was used', async () => {
    const joinToken = await controlPlane.joinToken();
    links.push(await RawLink.join(url, new RawIdentity(), { joinToken, labels: { raw: 'yes' } }));
    const link = open();
    await link.sayHello(new RawIdentity(), { joinToken });
    await expectGoodbye(link, Goodbye.REFUSED, 'the join token is unknown, expired or used');
  });

  test('with a join token that has expired', async () => {
    const { token, expireTime } = await stack.clients.agents.createJoinToken({ ttl: { nanos: 1_000_000 } });
    await until('the token to expire', () => Date.now() > Number(expireTime?.seconds) * 1000 + 1000);
    const link = open();
    await link.sayHello(new RawIdentity(), { joinToken: token });
    await expectGoodbye(link, Goodbye.REFUSED, 'the join token is unknown, expired or used');
  });

  test('without a token or an id', async () => {
    const link = open();
    await link.sayHello(new RawIdentity());
    await expectGoodbye(link, Goodbye.REFUSED, 'needs a join token');
  });

  test.each([
    ['another signature', { signature: new Uint8Array(64) }, 'signature'],
    ['a key that is none', { publicKey: new Uint8Array(5) }, 'public_key'],
    ['no name', { name: '' }, 'hello.name'],
    ['no slots', { slots: 0 }, 'hello.slots'],
    ['a label that is none', { labels: { 'a b': 'c' } }, 'hello.labels'],
    ['an agent id that is none', { agentId: "' OR 1=1" }, 'is not known by this key'],
  ])('with %s, and does not use up the token', async (_, hello, message) => {
    const joinToken = await controlPlane.joinToken();
    const link = open();
    await link.sayHello(new RawIdentity(), { joinToken, ...hello });
    await expectGoodbye(link, Goodbye.REFUSED, message);
    links.push(await RawLink.join(url, new RawIdentity(), { joinToken, labels: { raw: 'yes' } }));
  });

  test('with the id of another agent', async () => {
    const [, victim] = await join();
    const stranger = new RawIdentity();
    stranger.agentId = victim.agentId;
    const link = open();
    await link.sayHello(stranger);
    await expectGoodbye(link, Goodbye.REFUSED, 'is not known by this key');
    expect((await stack.clients.agents.getAgent({ id: victim.agentId })).agent).toMatchObject({ state: 1 });
  });
});

test('a second WebSocket of the same agent: the newer wins, the older is told why', async () => {
  const [older, identity] = await join();
  const [newer] = await join(identity);
  await expectGoodbye(older, Goodbye.REPLACED, 'a newer link of the same agent took over');
  newer.send({ case: 'heartbeat', value: {} });
  expect((await stack.clients.agents.getAgent({ id: identity.agentId })).agent).toMatchObject({ state: 1 });
  const { agents } = await stack.clients.agents.listAgents({ labelSelector: 'raw' });
  expect(agents.filter(({ id }) => id === identity.agentId)).toHaveLength(1);
});

test('a hello that comes after that of a later try of the same process does not take over, and is no reason to give up', async () => {
  const [newer, identity] = await join(undefined, undefined, { instanceId: 'process-1', dial: 2n });
  const late = open();
  await late.sayHello(identity, { instanceId: 'process-1', dial: 1n });
  await expectGoodbye(late, Goodbye.SHUTDOWN, 'a later link of the same agent process came first');
  newer.send({ case: 'heartbeat', value: { number: 1n } });
  expect(await newer.next('leaseRenewed')).toMatchObject({ heartbeat: 1n });
  await join(identity, undefined, { instanceId: 'process-2', dial: 1n });
  await expectGoodbye(newer, Goodbye.REPLACED, 'a newer link of the same agent took over');
});

test('the link of an agent that is deleted is closed at once, and its key is refused from then on', async () => {
  const [link, identity] = await join();
  await stack.clients.agents.deleteAgent({ id: identity.agentId });
  await expectGoodbye(link, Goodbye.REVOKED, 'the agent was deleted');
  const again = open();
  await again.sayHello(identity);
  await expectGoodbye(again, Goodbye.REFUSED, 'is not known by this key; it was deleted');
});

test('what an agent says of an attempt that is not its own changes nothing', async () => {
  const { id } = await execute(executions, { ...quick, agentSelector: '!raw' });
  const before = await get(executions, id);
  const [link] = await join();
  const ref = { executionId: id, attempt: 1 };
  link.send({ case: 'log', value: { ref, stream: 1, data: Buffer.from('forged') } });
  expect(await link.next('drop')).toMatchObject({ ref });
  link.send({ case: 'result', value: { ref, state: State.SUCCEEDED, outputJson: Buffer.from('{"forged":true}') } });
  expect(await link.next('resultStored')).toMatchObject({ ref });
  expect(await get(executions, id)).toEqual(before);
});

test('an HTTP client that is no agent is told what is expected', async () => {
  const refusal = (path: string, protocol?: string) =>
    new Promise<number | undefined>((resolve) => {
      const socket = new WebSocket(`${url.replace('http', 'ws')}${path}`, protocol ? [protocol] : []);
      socket.once('unexpected-response', (_, response) => {
        response.resume();
        resolve(response.statusCode);
      });
      socket.once('open', () => resolve(101));
      socket.on('error', () => {});
    });
  expect(await refusal('/agent/v1/link')).toBe(400);
  expect(await refusal('/agent/v1/link', 'other')).toBe(400);
  expect(await refusal('/other', 'harrier.link.v1')).toBe(404);
});
