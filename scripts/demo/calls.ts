import type { Writable } from 'node:stream';
import { type Client, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { type Execution, ExecutionService, Execution_State as State } from '@harrier/shared/gen/execution';
import type { RunningHarrier } from './harrier.ts';

type Json = Record<string, unknown>;
type Caller = Client<typeof ExecutionService>;

/** Longer than any of the demo's modules takes. */
const TIMEOUT_MS = 60_000;

/** A gRPC client. */
export function createCaller({ url, key }: RunningHarrier): Caller {
  const transport = createGrpcTransport({
    baseUrl: url,
    defaultTimeoutMs: TIMEOUT_MS,
    interceptors: [
      (next) => (request) => {
        request.header.set('Authorization', `Bearer ${key}`);
        return next(request);
      },
    ],
  });
  return createClient(ExecutionService, transport);
}

/** Runs a module and shows each event as it comes. @returns its output */
export async function showStream(caller: Caller, module: string, input: Json, to: Writable): Promise<unknown> {
  const request = {
    target: { case: 'module' as const, value: module },
    inputForm: { case: 'inputJson' as const, value: JSON.stringify(input) },
  };
  const output = new LinePrinter(to);
  let result: Execution | undefined;
  for await (const { event } of caller.executeStream(request)) {
    if (event.case === 'log') output.write(event.value.data);
    if (event.case === 'progress') to.write(`  ${event.value.percent.toFixed(0)} % ${event.value.step}\n`);
    if (event.case === 'result') result = event.value;
  }
  output.end();
  if (result === undefined) throw new Error(`the stream of ${module} ended without a result`);
  const { state, outputJson, error } = result;
  if (state !== State.SUCCEEDED) throw new Error(`${module} did not succeed: ${error?.message ?? 'no reason given'}`);
  to.write(`${outputJson}\n`);
  return JSON.parse(outputJson);
}

/** Shows output line by line: a chunk of it may end anywhere. */
class LinePrinter {
  readonly #to: Writable;
  readonly #decoder = new TextDecoder();
  #rest = '';

  constructor(to: Writable) {
    this.#to = to;
  }

  write(data: Uint8Array): void {
    const lines = (this.#rest + this.#decoder.decode(data, { stream: true })).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#to.write(`  | ${line}\n`);
  }

  end(): void {
    if (this.#rest !== '') this.#to.write(`  | ${this.#rest}\n`);
    this.#rest = '';
  }
}

/** A unary call of Connect needs nothing but an HTTP client. */
export async function callConnect(harrier: RunningHarrier, module: string, input: Json): Promise<unknown> {
  const response = await post(harrier, '/harrier.v1.ExecutionService/Execute', { module, input });
  const { execution } = (await response.json()) as { execution: { state: string; output: unknown } };
  if (execution.state !== 'SUCCEEDED') throw new Error(`Connect answered ${JSON.stringify(execution)}`);
  return execution.output;
}

/** The body is the input, the answer the output. */
export async function callRest(harrier: RunningHarrier, module: string, input: Json): Promise<unknown> {
  return await (await post(harrier, `/run/${module}`, input)).json();
}

async function post({ url, key }: RunningHarrier, path: string, body: Json): Promise<Response> {
  const response = await fetch(new URL(path, url), {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  return response;
}
