/**
 * Levels of objects and arrays in one another of every document that can become a `google.protobuf.Struct` or `Value`:
 * outputs, details of errors, JSON Schemas, inputs as structures, templates of workflows.
 *
 * Readers of protobuf in C, C++, Java and Python (so all callers by grpcio) give up at 100 messages in one another, and a
 * level of objects is three of them: Struct, entry of its map, Value. That leaves four for what the document stands in. The
 * runtimes have the same bound (`agent/runtime/result_json.py`, `deploy/runners/nodejs/result-json.mjs`).
 */
export const MAX_DOCUMENT_DEPTH = 32;

/** Characters of a path that are told. */
const MAX_PATH_CHARS = 200;

export interface DocumentFault {
  /** From the root of the document, for example `.a[3]["x y"]`; empty for the root. At most 200 characters. */
  path: string;
  problem: string;
}

/**
 * The first thing in a parsed JSON document that not every form of it can carry; undefined when there is none. Numbers
 * beyond a double, lone surrogates, and what is nested too deeply.
 */
export function documentFault(value: unknown, maxDepth: number = MAX_DOCUMENT_DEPTH): DocumentFault | undefined {
  const fault = faultIn(value, maxDepth);
  if (fault === undefined) return undefined;
  const problem = fault.problem === TOO_DEEP ? `nested deeper than ${maxDepth} levels` : fault.problem;
  return { path: fault.path.slice(0, MAX_PATH_CHARS), problem };
}

const TOO_DEEP = 'too deep';
const NO_TEXT = 'a string with a lone surrogate is not valid Unicode';
const numberProblem = (value: number) =>
  Number.isNaN(value) ? 'NaN is not a JSON number' : 'the number is beyond the range of a double';
const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;

function faultIn(value: unknown, levels: number): DocumentFault | undefined {
  if (typeof value === 'number') {
    return Number.isFinite(value) ? undefined : { path: '', problem: numberProblem(value) };
  }
  if (typeof value === 'string') return value.isWellFormed() ? undefined : { path: '', problem: NO_TEXT };
  if (typeof value !== 'object' || value === null) return undefined;
  if (levels === 0) return { path: '', problem: TOO_DEEP };
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const fault = faultIn(value[i], levels - 1);
      if (fault !== undefined) return { ...fault, path: `[${i}]${fault.path}` };
    }
    return undefined;
  }
  for (const key of Object.keys(value)) {
    const fault = key.isWellFormed()
      ? faultIn((value as Record<string, unknown>)[key], levels - 1)
      : { path: '', problem: NO_TEXT };
    if (fault === undefined) continue;
    return { ...fault, path: `${IDENTIFIER.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`}${fault.path}` };
  }
  return undefined;
}
