import { setTimeout as wait } from 'node:timers/promises';
import { type Client, Code, ConnectError } from '@connectrpc/connect';
import {
  WorkflowLogEntry_Level as Level,
  WorkflowRun_State as State,
  type WorkflowLogEntry,
  type WorkflowRun,
  type WorkflowService,
} from '@harrier/shared/gen/workflow';
import { isConnectionLoss } from '../connection/call-error.ts';
import { CliError, EXIT } from '../failure.ts';
import { isTerminal, paint, printable, type Style, writeError } from '../output/terminal.ts';
import { type Outline, outlineOf } from './outline.ts';
import { ProgressView } from './progress-view.ts';

/** A control plane that is restarted is back long before this. */
const MAX_RECONNECTS = 20;
const RECONNECT_MS = 500;
const COLOURS: Readonly<Record<Level, Style>> = {
  [Level.LEVEL_UNSPECIFIED]: 'gray',
  [Level.DEBUG]: 'gray',
  [Level.INFO]: 'reset',
  [Level.WARNING]: 'yellow',
  [Level.ERROR]: 'red',
};

/**
 * Follows a run to its end: on a terminal its nodes are drawn as they change, elsewhere the lines of its log go to standard error.
 * A lost connection is opened again, and goes on where it was.
 */
export async function watchRun(
  client: Client<typeof WorkflowService>,
  id: string,
  quiet: boolean,
): Promise<WorkflowRun> {
  const draws = !quiet && isTerminal();
  let view: ProgressView | undefined;
  let afterSequence = 0n;
  for (let losses = 0; ; losses++) {
    try {
      if (draws) view ??= new ProgressView(await outlineOfRun(client, id));
      for await (const { event } of client.watchWorkflowRun({ id, afterSequence })) {
        losses = 0;
        if (event.case === 'result') return event.value;
        if (event.case === 'log') {
          afterSequence = event.value.sequence;
          if (!quiet && !draws) await writeError(lineOf(event.value));
        }
        if (event.case === 'node') view?.set(event.value);
      }
      throw new CliError(`the watch of run ${id} ended before the run`, EXIT.unreachable);
    } catch (error) {
      if (!isConnectionLoss(error) || losses >= MAX_RECONNECTS) throw error;
      await wait(RECONNECT_MS);
    } finally {
      await view?.end();
    }
  }
}

/** Of a workflow that is not registered any more, what is drawn are the nodes that are reached. */
async function outlineOfRun(client: Client<typeof WorkflowService>, id: string): Promise<Outline> {
  const { run } = await client.getWorkflowRun({ id });
  try {
    const { workflow } = await client.getWorkflow({ name: run?.workflow ?? '', version: run?.version ?? '' });
    return workflow === undefined ? new Map() : outlineOf(workflow);
  } catch (error) {
    if (ConnectError.from(error).code === Code.NotFound) return new Map();
    throw error;
  }
}

function lineOf({ level, path, message }: WorkflowLogEntry): string {
  const text = printable(`${path === '' ? 'run' : path}: ${message}`);
  return `${paint(COLOURS[level] ?? 'reset', text, process.stderr)}\n`;
}

export function stateName(state: State): string {
  return Object.entries(State).find(([, number]) => number === state)?.[0] ?? '';
}

export function exitCodeOf(state: State): number {
  switch (state) {
    case State.SUCCEEDED:
      return EXIT.succeeded;
    case State.TIMED_OUT:
      return EXIT.timedOut;
    case State.CANCELLED:
      return EXIT.cancelled;
    default:
      return EXIT.failed;
  }
}
