import { type Timestamp, timestampDate } from '@bufbuild/protobuf/wkt';
import { ExecutionError_Code as Code, type ExecutionError } from '@harrier/shared/gen/error';
import { type Execution, Execution_State as State } from '@harrier/shared/gen/execution';
import { EXIT } from '../failure.ts';
import { paint, printable, type Style } from '../output/terminal.ts';

const STATE_STYLES: Readonly<Partial<Record<keyof typeof State, Style>>> = {
  RUNNING: 'cyan',
  PREPARING: 'cyan',
  SUCCEEDED: 'green',
  FAILED: 'red',
  TIMED_OUT: 'red',
  CANCELLED: 'yellow',
};

export function stateName(state: State): string {
  return nameIn(State, state);
}

export function paintState(state: State, stream?: NodeJS.WriteStream): string {
  const name = stateName(state);
  const style = STATE_STYLES[name as keyof typeof State];
  return style === undefined ? name : paint(style, name, stream);
}

/** `HANDLER_ERROR: ValueError: no rows` and, below it, the traceback. */
export function describeError(error: ExecutionError): string {
  const traceback = error.details?.traceback;
  const text = `${nameIn(Code, error.code)}: ${error.message}`;
  return printable(typeof traceback === 'string' && traceback !== '' ? `${text}\n${traceback.trimEnd()}` : text);
}

/** The exit code that follows the execution. */
export function exitCodeOf(execution: Execution): number {
  switch (execution.state) {
    case State.SUCCEEDED:
      return EXIT.succeeded;
    case State.TIMED_OUT:
      return EXIT.timedOut;
    case State.CANCELLED:
      return EXIT.cancelled;
    default:
      // A command's own code, so that `harrier exec --command` can stand for the command.
      return execution.error?.code === Code.EXIT_NONZERO ? execution.exitCode || EXIT.failed : EXIT.failed;
  }
}

/** Name of an enum's value; a value that a newer control plane knows shows as its number. */
export function nameIn(names: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(names).find((name) => names[name] === value) ?? String(value);
}

/** `12.3 ms`, `4.56 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatMs(ms: number): string {
  if (ms < 1000) return `${ms.toFixed(1)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** In UTC, as in the API; empty when it has not happened. */
export function formatTime(time: Timestamp | undefined): string {
  return time === undefined ? '' : timestampDate(time).toISOString();
}
