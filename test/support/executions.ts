import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import type { Clients } from './clients.ts';
import { LogCollector } from './log-collector.ts';
import { DEADLINE_MS, until } from './wait.ts';

type Executions = Clients['executions'];
type Request = Parameters<Executions['createExecution']>[0];

export function nameOf(state: State): string {
  return Object.entries(State).find(([, value]) => value === state)?.[0] ?? String(state);
}

/** Accepts an execution and answers its id. */
export async function create(executions: Executions, request: Request): Promise<string> {
  const { execution } = await executions.createExecution(request);
  return execution?.id ?? '';
}

/** Runs to the end. */
export async function execute(executions: Executions, request: Request): Promise<Execution> {
  const { execution } = await executions.execute(request as Parameters<Executions['execute']>[0]);
  if (execution === undefined) throw new Error('the answer has no execution');
  return execution;
}

/** The execution as it is now, with its attempts. */
export async function get(executions: Executions, id: string): Promise<Execution> {
  const { execution } = await executions.getExecution({ id });
  if (execution === undefined) throw new Error('the answer has no execution');
  return execution;
}

/** Waits for the end. */
export async function finished(executions: Executions, id: string): Promise<Execution> {
  for await (const { event } of executions.watchExecution({ id }, { timeoutMs: DEADLINE_MS })) {
    if (event.case === 'result') return await get(executions, id);
  }
  throw new Error('the stream ended without a result');
}

/** Waits until the execution is in a state, and answers it. */
export async function untilState(executions: Executions, id: string, state: State): Promise<Execution> {
  let last: State | undefined;
  return await until(
    `execution ${id} to be ${nameOf(state)}`,
    async () => {
      const execution = await get(executions, id);
      last = execution.state;
      if (last !== state && last >= State.SUCCEEDED) {
        throw new Error(`it is ${nameOf(last)}: ${execution.error?.message}\n${execution.stderrTail}`);
      }
      return last === state && execution;
    },
    { seen: () => last && nameOf(last) },
  );
}

/** Waits until standard output of the current attempt contains the text. */
export async function untilPrinted(executions: Executions, id: string, text: string): Promise<void> {
  let printed = '';
  for await (const { event } of executions.watchExecution({ id }, { timeoutMs: DEADLINE_MS })) {
    if (event.case === 'log') printed += Buffer.from(event.value.data).toString('latin1');
    if (printed.includes(text)) return;
    if (event.case === 'result') throw new Error(`it ended (${event.value.error?.message}) before it wrote "${text}"`);
  }
}

/** The stored log of an attempt. */
export async function storedLog(
  executions: Executions,
  id: string,
  from: { stdout?: number; stderr?: number; attempt?: number } = {},
): Promise<{ stdout: Buffer; stderr: Buffer }> {
  const log = new LogCollector(from);
  const offsets = { stdoutOffset: BigInt(from.stdout ?? 0), stderrOffset: BigInt(from.stderr ?? 0) };
  for await (const { chunk } of executions.readLogs({ id, attempt: from.attempt ?? 0, ...offsets })) log.add(chunk);
  return { stdout: log.stdout, stderr: log.stderr };
}
