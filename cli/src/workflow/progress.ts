import { WorkflowRunNode_State as State, type WorkflowRunNode } from '@harrier/shared/gen/workflow';
import { paint, printable, type Style } from '../output/terminal.ts';

/** Lines that are drawn at most; more nodes are counted by state. */
const MAX_LINES = 30;
const UNKNOWN: readonly [mark: string, style: Style] = ['?', 'gray'];
const MARKS: Readonly<Record<number, readonly [mark: string, style: Style]>> = {
  [State.PENDING]: ['·', 'gray'],
  [State.WAITING]: ['◌', 'yellow'],
  [State.RUNNING]: ['▶', 'cyan'],
  [State.SUCCEEDED]: ['✔', 'green'],
  [State.FAILED]: ['✘', 'red'],
  [State.TIMED_OUT]: ['⧖', 'red'],
  [State.CANCELLED]: ['■', 'yellow'],
  [State.SKIPPED]: ['↷', 'gray'],
};

/**
 * Draws the nodes of a run over what was drawn before.
 * @param drawn lines that are there. @returns lines that are there now
 */
export async function drawProgress(
  nodes: readonly WorkflowRunNode[],
  drawn: number,
  write: (text: string) => Promise<void>,
): Promise<number> {
  const lines = progressLines(nodes);
  await write(`${drawn > 0 ? `\x1b[${drawn}A` : ''}${lines.map((line) => `\x1b[2K${line}\n`).join('')}`);
  return Math.max(drawn, lines.length);
}

/** What goes on and what failed first; of what is over only as many as there is room for. */
export function progressLines(nodes: readonly WorkflowRunNode[]): string[] {
  const order = nodes.toSorted((a, b) => rank(a.state) - rank(b.state));
  const shown = new Set(order.slice(0, MAX_LINES));
  const lines = nodes.filter((node) => shown.has(node)).map(lineOf);
  const left = nodes.length - shown.size;
  return left === 0 ? lines : [...lines, paint('gray', `… and ${left} more that are over or wait`)];
}

function rank(state: State): number {
  if (state === State.RUNNING) return 0;
  if (state === State.FAILED || state === State.TIMED_OUT) return 1;
  return state === State.WAITING ? 2 : 3;
}

function lineOf({ path, kind, state, tries, waitingReason, error }: WorkflowRunNode): string {
  const [mark, style] = MARKS[state] ?? UNKNOWN;
  const notes = [
    kind,
    ...(tries > 1 ? [`try ${tries}`] : []),
    ...(waitingReason === '' ? [] : [`waits ${waitingReason}`]),
    ...(error === undefined ? [] : [error.message]),
  ];
  return `${paint(style, mark)} ${printable(path)}  ${paint('gray', printable(notes.join(', ')).replaceAll('\n', ' '))}`;
}
