import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient, createRouterTransport, type ServiceImpl } from '@connectrpc/connect';
import {
  type ExecuteStreamResponse,
  ExecuteStreamResponseSchema,
  ExecutionService,
  Execution_State as State,
  LogChunk_Stream as Stream,
  type WatchExecutionRequest,
  WatchExecutionResponseSchema,
} from '@harrier/shared/gen/execution';
import { describe, expect, it } from 'vitest';
import { startAndFollow } from './follow.ts';

const ID = '01990000-0000-7000-8000-000000000001';
type Event = ExecuteStreamResponse['event'];

function log(text: string, offset: number, stream: Stream = Stream.STDOUT, attempt = 1): Event {
  return { case: 'log', value: chunk(text, offset, stream, attempt) };
}

function chunk(text: string, offset: number, stream: Stream, attempt: number) {
  const { event } = create(ExecuteStreamResponseSchema, {
    event: { case: 'log', value: { stream, attempt, offset: BigInt(offset), data: Buffer.from(text) } },
  });
  if (event.case !== 'log') throw new Error('unreachable');
  return event.value;
}

const RESULT = create(ExecuteStreamResponseSchema, {
  event: { case: 'result', value: { id: ID, state: State.SUCCEEDED } },
}).event;

const LOST = new ConnectError('the control plane stops', Code.Unavailable);

/** A control plane whose streams are scripted: each plays its events and then loses the connection, or not. */
function scripted(streams: { events: Event[]; end?: ConnectError }[], header = ID) {
  const watched: WatchExecutionRequest[] = [];
  async function* play(): AsyncGenerator<Event> {
    const stream = streams.shift();
    yield* stream?.events ?? [];
    if (stream?.end !== undefined) throw stream.end;
  }
  const service: Partial<ServiceImpl<typeof ExecutionService>> = {
    async *executeStream(_request, context) {
      if (header !== '') context.responseHeader.set('harrier-execution-id', header);
      for await (const event of play()) yield create(ExecuteStreamResponseSchema, { event });
    },
    async *watchExecution(request) {
      watched.push(request);
      for await (const event of play()) yield create(WatchExecutionResponseSchema, { event });
    },
  };
  const transport = createRouterTransport(({ service: add }) => add(ExecutionService, service));
  return { client: createClient(ExecutionService, transport), watched };
}

async function follow(client: ReturnType<typeof scripted>['client']): Promise<string[]> {
  const seen: string[] = [];
  for await (const event of startAndFollow({ target: { case: 'module', value: 'm' } }, { client })) {
    seen.push(event.case === 'log' ? Buffer.from(event.value.data).toString() : String(event.case));
  }
  return seen;
}

describe('startAndFollow', () => {
  it('goes on where a lost connection ended, each byte once', async () => {
    const { client, watched } = scripted([
      { events: [log('one', 0), log('err', 0, Stream.STDERR)], end: LOST },
      { events: [log('two', 3)], end: LOST },
      { events: [log('again', 0, Stream.STDOUT, 2)], end: LOST },
      { events: [RESULT] },
    ]);
    expect(await follow(client)).toEqual(['one', 'err', 'two', 'again', 'result']);
    expect(watched).toMatchObject([
      { id: ID, attempt: 1, stdoutOffset: 3n, stderrOffset: 3n },
      { id: ID, attempt: 1, stdoutOffset: 6n, stderrOffset: 3n },
      { id: ID, attempt: 2, stdoutOffset: 5n, stderrOffset: 0n },
    ]);
  });

  it('does not ask again when nobody knows whether the request was accepted', async () => {
    const { client, watched } = scripted([{ events: [], end: LOST }], '');
    await expect(follow(client)).rejects.toThrow('the control plane stops');
    expect(watched).toEqual([]);
  });

  it('does not ask again after a refusal', async () => {
    const refused = new ConnectError('no', Code.PermissionDenied);
    const { client, watched } = scripted([{ events: [log('one', 0)], end: refused }]);
    await expect(follow(client)).rejects.toThrow('no');
    expect(watched).toEqual([]);
  });

  it('says so when a stream ends without a result', async () => {
    const { client } = scripted([{ events: [log('one', 0)] }]);
    await expect(follow(client)).rejects.toThrow('ended the stream before the result');
  });
});
