import { setTimeout as wait } from 'node:timers/promises';
import type { Client } from '@connectrpc/connect';
import {
  WorkflowLogEntry_Level as Level,
  WorkflowRun_State as State,
  type WorkflowLogEntry,
  type WorkflowRun,
  type WorkflowRunNode,
  type WorkflowService,
} from '@harrier/shared/gen/workflow';
import { isConnectionLoss } from '../connection/call-error.ts';
import { CliError, EXIT } from '../failure.ts';
import { isTerminal, paint, printable, type Style, write, writeError } from '../output/terminal.ts';
import { drawProgress } from './progress.ts';

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
  const nodes = new Map<string, WorkflowRunNode>();
  const draws = !quiet && isTerminal();
  let afterSequence = 0n;
  let drawn = 0;
  for (let losses = 0; ; losses++) {
    try {
      for await (const { event } of client.watchWorkflowRun({ id, afterSequence })) {
        losses = 0;
        if (event.case === 'result') return event.value;
        if (event.case === 'log') {
          afterSequence = event.value.sequence;
          if (!quiet && !draws) await writeError(lineOf(event.value));
        }
        if (event.case !== 'node') continue;
        nodes.set(event.value.path, event.value);
        if (draws) drawn = await drawProgress([...nodes.values()], drawn, write);
      }
      throw new CliError(`the watch of run ${id} ended before the run`, EXIT.unreachable);
    } catch (error) {
      if (!isConnectionLoss(error) || losses >= MAX_RECONNECTS) throw error;
      await wait(RECONNECT_MS);
    }
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
