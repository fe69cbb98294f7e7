import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { messageOf } from '../errors.ts';
import { type Workflow, WorkflowSchema } from '../gen/harrier/v1/workflow_pb.ts';
import type { FileProblem, Position } from '../yaml-file/problem.ts';
import { YamlSource } from '../yaml-file/yaml-source.ts';

/** A workflow of a file, and where its parts stand. */
export interface FileWorkflow {
  workflow: Workflow;
  /** @param path as errors name it, for example `nodes[3].map.items`; of a part that is not there the nearest around it */
  positionOf: (path: string) => Position | undefined;
}

/** Keys whose values are words of an enum: a file may write them in small letters. */
const WORDS = new Set(['join', 'mode', 'on_failure', 'on_timeout']);
/** Values that are the caller's own: nothing in them is ours. */
const FREE = new Set(['input', 'output', 'variables', 'input_schema', 'schema', 'env', 'labels', 'set_variables']);

/** Reads a workflow written in YAML, or in JSON, which is YAML. */
export function parseWorkflowFile(text: string): FileWorkflow | { problems: FileProblem[] } {
  const source = new YamlSource(text);
  if (source.problems.length > 0) return { problems: source.problems };
  const json = source.document.toJS() as JsonValue;
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    return { problems: [{ position: undefined, message: 'a workflow is a map with `name`, `version` and `nodes`' }] };
  }
  const positionOf = (path: string) => nearest(source, keysOf(path));
  try {
    return { workflow: fromJson(WorkflowSchema, inCapitals(json)), positionOf };
  } catch (error) {
    return { problems: [{ position: undefined, message: messageOf(error) }, ...unreadable(json, positionOf)] };
  }
}

/** Where the parser of the schema says only what, each part on its own says where. */
function unreadable(json: { [key: string]: JsonValue }, positionOf: FileWorkflow['positionOf']): FileProblem[] {
  const problems: FileProblem[] = [];
  const attempt = (path: string, part: { [key: string]: JsonValue }) => {
    try {
      fromJson(WorkflowSchema, inCapitals(part));
    } catch (error) {
      problems.push({ position: positionOf(path), message: `${path}: ${messageOf(error)}` });
    }
  };
  for (const [key, value] of Object.entries(json)) {
    if ((key === 'nodes' || key === 'edges') && Array.isArray(value)) {
      for (const [i, item] of value.entries()) attempt(`${key}[${i}]`, { [key]: [item] });
    } else attempt(key, { [key]: value });
  }
  return problems;
}

function inCapitals(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(inCapitals);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, child]): [string, JsonValue] => {
    if (WORDS.has(key) && typeof child === 'string') return [key, child.toUpperCase()];
    return [key, FREE.has(key) ? child : inCapitals(child)];
  });
  return Object.fromEntries(entries);
}

/** `nodes[3].map` as keys for the document. */
function keysOf(path: string): (string | number)[] {
  return [...path.matchAll(/\[(\d+)\]|[^.[\]]+/g)].map(([text, index]) => (index === undefined ? text : Number(index)));
}

function nearest(source: YamlSource, keys: readonly (string | number)[]): Position | undefined {
  for (let length = keys.length; length > 0; length--) {
    const node: unknown = source.document.getIn(keys.slice(0, length), true);
    if (node !== undefined && node !== null) return source.positionOf(node);
  }
  return undefined;
}
