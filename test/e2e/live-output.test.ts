import { ExecutionService, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import type { Protocol } from '../support/clients.ts';
import { create, execute, finished, storedLog, untilPrinted } from '../support/executions.ts';
import { openHttp, parseEvents, readAll } from '../support/http.ts';
import { LogCollector } from '../support/log-collector.ts';
import { code, command, fixture } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { randomNumbers, writtenBytes } from '../support/written.ts';

const stack = await startStack({ agents: [] });
const { clients, executions } = stack;
const TICKS = { lines: 60, width: 20, pause: 0.02 };
const WRITTEN = { seed: 7, stdout: 700_001, stderr: 300_003 };
const PROTOCOLS: Protocol[] = ['gRPC', 'gRPC-Web', 'Connect binary', 'Connect JSON'];

/** Each follows an execution to its end and answers what it saw. */
const FOLLOWERS: [string, (id: string) => Promise<{ stdout: Buffer; stderr: Buffer }>][] = [
  ...PROTOCOLS.flatMap((protocol): typeof FOLLOWERS => {
    const client = clients.client(ExecutionService, protocol);
    return [
      [
        `WatchExecution over ${protocol}`,
        async (id) => {
          const log = new LogCollector();
          for await (const { event } of client.watchExecution({ id })) if (event.case === 'log') log.add(event.value);
          return log;
        },
      ],
      [
        `ReadLogs with follow over ${protocol}`,
        async (id) => {
          const log = new LogCollector();
          for await (const { chunk } of client.readLogs({ id, follow: true })) log.add(chunk);
          return log;
        },
      ],
    ];
  }),
  [
    'REST as text',
    async (id) => {
      const [stdout, stderr] = await Promise.all(['STDOUT', 'STDERR'].map((stream) => follow(id, `stream=${stream}`)));
      return { stdout: stdout ?? Buffer.alloc(0), stderr: stderr ?? Buffer.alloc(0) };
    },
  ],
  [
    'REST as server-sent events',
    async (id) => {
      const events = parseEvents((await follow(id, '', { accept: 'text/event-stream' })).toString());
      expect(events.at(-1)?.event).toBe('end');
      return ofEvents(events.slice(0, -1));
    },
  ],
  [
    'REST as lines of JSON',
    async (id) => {
      const response = await openHttp(`${clients.url}/executions/${id}/watch`, { headers: clients.headers() });
      const lines = (await readAll(response)).toString().trim().split('\n');
      const events = lines.map((line) => JSON.parse(line));
      expect(Object.keys(events.at(-1))).toEqual(['result']);
      const logs = events.filter((event) => 'log' in event);
      return ofEvents(logs.map(({ log }) => ({ data: JSON.stringify(log) })));
    },
  ],
];

async function follow(id: string, query: string, headers: Record<string, string> = {}): Promise<Buffer> {
  const url = `${clients.url}/executions/${id}/logs?follow=true&${query}`;
  return await readAll(await openHttp(url, { headers: { ...clients.headers(), ...headers } }));
}

function ofEvents(events: { data: string }[]): { stdout: Buffer; stderr: Buffer } {
  const chunks = events.map(({ data }) => JSON.parse(data));
  const of = (name: string) =>
    Buffer.concat(chunks.filter(({ stream }) => stream === name).map(({ data }) => Buffer.from(data ?? '', 'base64')));
  return { stdout: of('STDOUT'), stderr: of('STDERR') };
}

test('readers that come before the start get every byte live, all of them the same', async () => {
  const id = await create(executions, code(fixture('writer.py'), WRITTEN));
  const readers = FOLLOWERS.map(async ([name, read]) => [name, await read(id)] as const);
  await stack.addAgent();
  for (const reader of readers) {
    const [name, { stdout, stderr }] = await reader;
    expect(stdout.equals(writtenBytes(WRITTEN, 'stdout')), `stdout of ${name}: ${stdout.length} bytes`).toBe(true);
    expect(stderr.equals(writtenBytes(WRITTEN, 'stderr')), `stderr of ${name}: ${stderr.length} bytes`).toBe(true);
  }
});

test.each(FOLLOWERS)('%s, opened in the middle and after the end, gives the whole log', async (_, read) => {
  const id = await create(executions, ticker(TICKS));
  await untilPrinted(executions, id, 'line 5 ');
  expect((await read(id)).stdout.toString()).toBe(tickerText(TICKS));
  await finished(executions, id);
  expect((await read(id)).stdout.toString()).toBe(tickerText(TICKS));
});

test('what is printed is seen while the code still runs', async () => {
  const release = ticker({ lines: 1_000_000, pause: 0.05 });
  const id = await create(executions, release);
  await untilPrinted(executions, id, 'line 3 ');
  const { execution } = await executions.getExecution({ id });
  expect(execution?.endTime).toBeUndefined();
  await executions.cancelExecution({ id });
  await finished(executions, id);
});

test('a reader that was cut off goes on at any offset, during the run and after it', async () => {
  const id = await create(executions, ticker(TICKS));
  const wanted = tickerText(TICKS);
  await untilPrinted(executions, id, 'line 8 ');
  const random = randomNumbers(1);
  let seen = '';
  // Each connection is broken off after a few chunks; the next one starts where it ended.
  while (seen.length < wanted.length) {
    const from = { stdoutOffset: BigInt(seen.length) };
    const log = new LogCollector({ stdout: seen.length });
    let left = 1 + Math.floor(random() * 4);
    for await (const { event } of executions.watchExecution({ id, ...from })) {
      if (event.case === 'log') log.add(event.value);
      if (event.case === 'result' || (event.case === 'log' && --left === 0)) break;
    }
    seen += log.stdout.toString();
  }
  expect(seen).toBe(wanted);
  await finished(executions, id);
  for (const offset of [0, 1, 17, wanted.length - 1, wanted.length, wanted.length + 100]) {
    const { stdout } = await storedLog(executions, id, { stdout: offset });
    expect(stdout.toString()).toBe(wanted.slice(offset));
  }
});

test('server-sent events are resumed with Last-Event-ID', async () => {
  const id = await create(executions, ticker(TICKS));
  await finished(executions, id);
  const events = parseEvents((await follow(id, '', { accept: 'text/event-stream' })).toString());
  const [first] = events;
  const rest = await follow(id, '', { accept: 'text/event-stream', 'last-event-id': first?.id ?? '' });
  const all = Buffer.concat([
    ofEvents([first ?? { data: '{}' }]).stdout,
    ofEvents(parseEvents(rest.toString()).slice(0, -1)).stdout,
  ]);
  expect(all.toString()).toBe(tickerText(TICKS));
});

test('one stream alone can be read', async () => {
  const { id } = await execute(executions, command('sh', '-c', 'echo out; echo err >&2'));
  const streams: unknown[] = [];
  for await (const { chunk } of executions.readLogs({ id, stream: Stream.STDERR })) streams.push(chunk?.stream);
  expect(streams).toEqual([Stream.STDERR]);
});

test('a reader who does not read slows neither the execution nor other readers', async () => {
  const large = { seed: 9, stdout: 12 * 1024 * 1024, stderr: 10 };
  const id = await create(executions, code(fixture('writer.py'), large));
  const stuck = await openHttp(`${clients.url}/executions/${id}/logs?follow=true&stream=STDOUT`, {
    headers: clients.headers(),
  });
  const other = follow(id, 'stream=STDOUT');
  await finished(executions, id);
  const wanted = writtenBytes(large, 'stdout');
  expect((await other).equals(wanted)).toBe(true);
  // It gets everything all the same, when it reads at last.
  expect((await readAll(stuck)).equals(wanted)).toBe(true);
});

test('bytes of a character that was cut in two, and the ends of the log, are shown as text in the execution', async () => {
  const source =
    'import sys\ndef handler(input):\n    sys.stdout.buffer.write(b"\\xe2\\x82" + b"a\\0b" + "€".encode())\n    return {}\n';
  const { id, stdoutTail } = await execute(executions, code(source));
  expect(stdoutTail).toBe('\ufffda\ufffdb€');
  expect((await storedLog(executions, id)).stdout).toEqual(Buffer.from('\xe2\x82a\0b\xe2\x82\xac', 'latin1'));
  const text = await clients.rest('GET', `/executions/${id}/logs`);
  expect(text.bytes).toEqual(Buffer.from('\xe2\x82a\0b\xe2\x82\xac', 'latin1'));
  expect(text.headers['content-type']).toBe('text/plain');
});
