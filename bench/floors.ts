import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import type { Sql } from '../control-plane/src/db/sql.ts';
import { HttpCaller } from './http-caller.ts';
import { serve } from './serve.ts';
import { median, timeEach } from './statistics.ts';

const WARM_UP = 300;
const CALLS = 1_000;
const PAIRS = 500;
const HERE = dirname(fileURLToPath(import.meta.url));

/** What the parts of a call cost by themselves, in milliseconds at the median. */
export interface Floors {
  floor_echo_ms: number;
  floor_commit_pair_ms: number;
  floor_websocket_ms: number;
  floor_pipe_ms: number;
  floor_fork_ms: number;
}

export async function measureFloors(sql: Sql, python: string): Promise<Floors> {
  const { pipe, fork } = measurePython(python);
  return {
    floor_echo_ms: await measureEcho(),
    floor_commit_pair_ms: await measureCommitPair(sql),
    floor_websocket_ms: await measureWebSocket(),
    floor_pipe_ms: pipe,
    floor_fork_ms: fork,
  };
}

async function measureEcho(): Promise<number> {
  const server = await serve('echo-server.ts');
  const caller = new HttpCaller(server.url, '/harrier.v1.ExecutionService/Execute', 'none');
  const call = (n: number) => caller.call(JSON.stringify({ module: 'echo', inputJson: `{"n":${n}}` }));
  await timeEach(WARM_UP, call);
  const times = await timeEach(CALLS, call);
  caller.close();
  await server.stop();
  return median(times);
}

/** A row inserted and then updated, each in a transaction of its own, on the server that the executions use. */
async function measureCommitPair(sql: Sql): Promise<number> {
  await sql`CREATE TABLE IF NOT EXISTS bench_pairs (id int PRIMARY KEY, state int NOT NULL, input text, output text)`;
  await sql`TRUNCATE bench_pairs`;
  const pair = async (id: number) => {
    await sql`INSERT INTO bench_pairs (id, state, input) VALUES (${id}, 1, '{"n":1}')`;
    await sql`UPDATE bench_pairs SET state = 2, output = '{"n":2}' WHERE id = ${id}`;
  };
  await timeEach(WARM_UP, pair);
  const times = await timeEach(PAIRS, (n) => pair(WARM_UP + n));
  await sql`DROP TABLE bench_pairs`;
  return median(times);
}

async function measureWebSocket(): Promise<number> {
  const server = await serve('websocket-server.ts');
  const socket = new WebSocket(server.url, { perMessageDeflate: false });
  await once(socket, 'open');
  const message = Buffer.alloc(300, 1);
  const echo = async () => {
    socket.send(message);
    await once(socket, 'message');
  };
  await timeEach(WARM_UP, echo);
  const times = await timeEach(CALLS, echo);
  socket.close();
  await server.stop();
  return median(times);
}

/** A JSON line to a warm interpreter and back; a fork of one. */
function measurePython(python: string): { pipe: number; fork: number } {
  const program = `import json, sys
sys.path.insert(0, sys.argv[1])
import runtime_bench
print(json.dumps({"pipe": runtime_bench.pipe_floor_ms(sys.argv[2]), "fork": runtime_bench.fork_floor_ms(sys.argv[2])}))`;
  return JSON.parse(execFileSync(python, ['-c', program, HERE, python], { encoding: 'utf8' }));
}
