import { readFile } from 'node:fs/promises';
import { isMap } from 'yaml';
import { HarrierError, messageOf } from '../errors.ts';
import { MapReader } from '../yaml-file/map-reader.ts';
import { byPosition, type FileProblem, formatProblem } from '../yaml-file/problem.ts';
import { YamlSource } from '../yaml-file/yaml-source.ts';
import { BUILT_IN_CLASSES, readTaskClass, type TaskClass } from './read-task-class.ts';

export type { TaskClass } from './read-task-class.ts';
export { BUILT_IN_CLASSES } from './read-task-class.ts';
export { slurmExcess } from './slurm-excess.ts';

export interface ParsedTaskClasses {
  /** Those of the text, and those that every control plane has, by name. */
  classes: ReadonlyMap<string, TaskClass>;
  /** All of them, by their place in the text. Not empty: the classes are not to be used. */
  problems: FileProblem[];
}

/**
 * Reads a file of task classes.
 * @throws HarrierError failed_precondition with all that is wrong, each with its line, one below the other
 */
export async function loadTaskClasses(path: string): Promise<ReadonlyMap<string, TaskClass>> {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path));
  } catch (cause) {
    throw new HarrierError('failed_precondition', `${path}: cannot be read: ${messageOf(cause)}`, { cause });
  }
  const { classes, problems } = parseTaskClasses(text);
  if (problems.length === 0) return classes;
  throw new HarrierError('failed_precondition', problems.map((problem) => formatProblem(path, problem)).join('\n'));
}

/** Reads the text of such a file: a map with `task_classes`, a list of `name, timeout, limits, …`. */
export function parseTaskClasses(text: string): ParsedTaskClasses {
  const source = new YamlSource(text);
  const classes = new Map(BUILT_IN_CLASSES);
  if (source.problems.length === 0) readAll(source, classes);
  return { classes, problems: source.problems.toSorted(byPosition) };
}

function readAll(source: YamlSource, classes: Map<string, TaskClass>): void {
  const root = source.document.contents;
  if (!isMap(root)) {
    source.report(root, 'a file of task classes is a map with the key `task_classes`');
    return;
  }
  const fields = new MapReader(source, root, '');
  const entries = fields.maps('task_classes') ?? [];
  fields.finish();
  const lines = new Map<string, number>();
  for (const entry of entries) {
    const taskClass = readTaskClass(entry);
    if (taskClass === undefined) continue;
    const { name } = taskClass;
    const before = lines.get(name);
    if (before !== undefined) entry.report('name', `${name} is already in line ${before}`);
    lines.set(name, entry.positionOf('name').line);
    classes.set(name, taskClass);
  }
}
