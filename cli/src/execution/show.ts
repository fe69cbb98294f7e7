import { create, toJson } from '@bufbuild/protobuf';
import {
  ExecuteStreamResponseSchema,
  type Execution,
  Execution_State as State,
  LogChunk_Stream as Stream,
} from '@harrier/shared/gen/execution';
import { executionText, formatExecution, prettyJson } from '../output/json.ts';
import { isTerminal, paint, write, writeError } from '../output/terminal.ts';
import { describeError, formatMs, paintState } from './describe.ts';
import type { ExecutionEvent } from './follow.ts';
import { StatusLine } from './status-line.ts';

export interface ShowOptions {
  /** Output as it comes. */
  follow: boolean;
  /** For programs: the execution, or with `follow` one event a line. */
  json: boolean;
  /** A command has no result but what it printed. */
  command: boolean;
}

/** Shows the events of an execution as they come, and its result. */
export async function showExecution(
  events: AsyncGenerator<ExecutionEvent, Execution>,
  options: ShowOptions,
): Promise<Execution> {
  const show = options.json ? (options.follow ? showEventAsJson : showNothing) : createView(options);
  for (;;) {
    const next = await events.next();
    if (next.done === true) {
      if (!options.json) await showResult(next.value, options);
      else if (!options.follow) await write(formatExecution(next.value));
      return next.value;
    }
    await show(next.value);
  }
}

async function showNothing(): Promise<void> {}

async function showEventAsJson(event: ExecutionEvent): Promise<void> {
  if (event.case === 'result') await write(`{"result":${executionText(event.value)}}\n`);
  else
    await write(
      `${JSON.stringify(toJson(ExecuteStreamResponseSchema, create(ExecuteStreamResponseSchema, { event })))}\n`,
    );
}

function createView({ follow }: ShowOptions): (event: ExecutionEvent) => Promise<void> {
  const status = new StatusLine();
  return async (event) => {
    switch (event.case) {
      case 'state':
        await status.state(event.value);
        return;
      case 'progress':
        await status.progress(event.value);
        return;
      case 'log':
        if (!follow) return;
        await status.clear();
        await (event.value.stream === Stream.STDERR ? writeError : write)(event.value.data);
        return;
      case 'result':
        await status.clear();
        return;
      case undefined:
        return;
    }
  };
}

async function showResult(execution: Execution, { command }: ShowOptions): Promise<void> {
  if (execution.state === State.SUCCEEDED) {
    if (!command) await write(`${isTerminal() ? prettyJson(execution.outputJson) : execution.outputJson.trim()}\n`);
  } else {
    const state = paintState(execution.state, process.stderr);
    const error = execution.error === undefined ? '' : ` ${describeError(execution.error)}`;
    await writeError(`${state}${error}\n`);
  }
  if (isTerminal(process.stderr)) await writeError(`${paint('dim', summary(execution), process.stderr)}\n`);
}

function summary({ id, attempt, durationMs, phases }: Execution): string {
  const run = phases === undefined ? '' : `, ran ${formatMs(phases.runMs)}`;
  const attempts = attempt > 1 ? `, attempt ${attempt}` : '';
  return `execution ${id}: ${formatMs(durationMs)} in all${run}${attempts}`;
}
