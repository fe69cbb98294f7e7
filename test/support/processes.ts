import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessInfo {
  pid: number;
  parent: number;
  /** Ticks since boot at its start: tells two processes with the same number apart. */
  startTicks: string;
  /** Arguments, separated by spaces. */
  command: string;
}

/** Every process that this one can see, zombies left out. */
export function listProcesses(): ProcessInfo[] {
  return readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? (readProcess(Number(name)) ?? []) : []));
}

/** The process and everything below it. */
export function processTree(root: number): ProcessInfo[] {
  const all = listProcesses();
  const found = all.filter(({ pid }) => pid === root);
  for (let i = 0; i < found.length; i++) found.push(...all.filter(({ parent }) => parent === found[i]?.pid));
  return found;
}

/** Processes whose arguments or environment contain the text. */
export function processesWith(text: string): ProcessInfo[] {
  return listProcesses().filter(
    ({ pid, command }) => pid !== process.pid && (command.includes(text) || environmentOf(pid).includes(text)),
  );
}

/** Kills every process whose arguments or environment contain the text. @returns the commands of those */
export function killProcessesWith(text: string): string[] {
  const killed: string[] = [];
  for (const { pid, command } of processesWith(text)) {
    try {
      process.kill(pid, 'SIGKILL');
      killed.push(command);
    } catch {
      // It has ended by itself.
    }
  }
  return killed;
}

/** Variables of a process as it was started, separated by NUL; empty when it may not be read. */
function environmentOf(pid: number): string {
  return read(`/proc/${pid}/environ`) ?? '';
}

function readProcess(pid: number): ProcessInfo | undefined {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name in parentheses may hold anything; what follows it is separated by spaces (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
  const command = (read(`/proc/${pid}/cmdline`) ?? '').replaceAll('\0', ' ').trim();
  return { pid, parent: Number(fields[1]), startTicks: fields[19] ?? '', command };
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
