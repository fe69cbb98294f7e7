/** Both from 1, as editors count. */
export interface Position {
  line: number;
  column: number;
}

/** Something wrong in a file, for people. */
export interface FileProblem {
  /** Absent: the file as a whole. */
  position: Position | undefined;
  message: string;
}

/** `modules.yaml:12:5: modules[1].version: …`, which editors turn into a link. */
export function formatProblem(path: string, { position, message }: FileProblem): string {
  return position === undefined ? `${path}: ${message}` : `${path}:${position.line}:${position.column}: ${message}`;
}

export function byPosition(a: FileProblem, b: FileProblem): number {
  const [left, right] = [a.position, b.position];
  return (left?.line ?? 0) - (right?.line ?? 0) || (left?.column ?? 0) - (right?.column ?? 0);
}
