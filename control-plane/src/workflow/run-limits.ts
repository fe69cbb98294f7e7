import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Instance, NodeError, Run, Stored } from './run-state.ts';

// What one run may hold in the memory of the replica that advances it. Values are counted in characters of their JSON, which
// are bytes but for what is not ASCII; outputs of executions are not among them: those stay with the executions.

/** Of all values that a run keeps: outputs of transforms, lists of maps, inputs of workflows, what signals bring. */
export const MAX_KEPT_CHARS = 64 * 1024 * 1024;
/** Of the variables that were set, of the run or of a workflow within it: they are written with every step. */
export const MAX_VARIABLES_CHARS = 256 * 1024;
/** Of the values in what is written in one statement, unless a single one is larger. */
export const MAX_STEP_CHARS = 16 * 1024 * 1024;
/** Nodes and items that a run enters: some 40 MiB. */
export const MAX_INSTANCES = 100_000;
/**
 * Of an error that comes into a run, whoever says it. Each of the instances may keep one, and it is told again by what fails
 * because of it. Where it is of an execution, that has the whole.
 */
export const MAX_ERROR_CHARS = 2 * 1024;

/** What an instance keeps. */
export function keptCharsOf(instance: Instance | undefined): number {
  return instance === undefined ? 0 : charsOf(instance.input) + charsOf(instance.output);
}

/** @returns why the run cannot keep a value; undefined: it can */
export function tooMuchKept(run: Run, value: Stored | undefined): NodeError | undefined {
  const chars = charsOf(value);
  if (run.keptChars + chars <= MAX_KEPT_CHARS) return undefined;
  return tooMuch(
    `its value of ${chars} characters is too much beside the ${run.keptChars} that the run keeps, of at most ` +
      `${MAX_KEPT_CHARS}; let a node that runs code make it: outputs of executions do not count`,
  );
}

/** @param variables all that would be set. @returns why they are too large; undefined: they are not */
export function tooLargeVariables(variables: object, changed: object): NodeError | undefined {
  const chars = JSON.stringify(variables).length;
  if (chars <= MAX_VARIABLES_CHARS) return undefined;
  const names = Object.keys(changed).join(', ');
  return tooMuch(`with ${names} the variables would take ${chars} characters, of at most ${MAX_VARIABLES_CHARS}`);
}

/** @param entered instances that there are. @returns why there cannot be so many more; undefined: there can */
export function tooManyInstances(entered: number, more: number): NodeError | undefined {
  if (entered + more <= MAX_INSTANCES) return undefined;
  return tooMuch(`its items are ${more} nodes beside the ${entered} of the run, which may have ${MAX_INSTANCES}`);
}

/** Of a value that is kept with the run. */
export function charsOf(value: Stored | undefined): number {
  return value !== undefined && 'json' in value ? value.json.length : 0;
}

/** Another try would end the same way. */
function tooMuch(message: string): NodeError {
  return { code: Code.INPUT_INVALID, message };
}
