/**
 * Places at which a process can be made to end as by `kill -9`, to try what a crash there does: on both sides of every
 * commit that an execution, a step of a workflow, or a time of a schedule needs. Nothing is armed, and passing a place costs a
 * look at an empty map, unless HARRIER_FAILPOINTS is set; only tests set it.
 */
export const CONTROL_PLANE_FAILPOINTS = [
  'accept-before-commit',
  'accept-committed',
  'claim-before-commit',
  'claim-committed',
  'log-before-commit',
  'log-committed',
  'retry-before-commit',
  'retry-committed',
  'result-before-commit',
  'result-committed',
  'workflow-step-before-commit',
  'workflow-step-committed',
  'schedule-before-commit',
  'schedule-decided',
  'schedule-started',
] as const;
export const AGENT_FAILPOINTS = ['result-before-send', 'result-acknowledged'] as const;

const NAMES = [...CONTROL_PLANE_FAILPOINTS, ...AGENT_FAILPOINTS];
export type Failpoint = (typeof NAMES)[number];

/** How often each armed place is still passed, the last time included. */
const armed = new Map<Failpoint, number>();

/**
 * Arms places: `NAME` or `NAME:PASSES`, separated by commas. The process ends when it passes one for that time.
 * @returns what is wrong with the text; nothing is armed then
 */
export function armFailpoints(text: string): string | undefined {
  const parsed: [Failpoint, number][] = [];
  for (const part of text.split(',')) {
    const [name, passes = '1'] = part.split(':');
    const found = NAMES.find((known) => known === name);
    if (found === undefined) return `there is no failpoint "${name}"; there are ${NAMES.join(', ')}`;
    if (!/^[1-9]\d{0,5}$/.test(passes)) return `"${part}" must end in a number of passes from 1`;
    parsed.push([found, Number(passes)]);
  }
  for (const [name, passes] of parsed) armed.set(name, passes);
  return undefined;
}

/** Passes a place. */
export function failpoint(name: Failpoint): void {
  const passes = armed.get(name);
  if (passes === undefined) return;
  if (passes > 1) armed.set(name, passes - 1);
  else process.kill(process.pid, 'SIGKILL');
}
