import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from './workspace.ts';

/** Ad-hoc code with an input, as `execute`, `executeStream` and `createExecution` take it. */
export function code(source: string, input: object = {}) {
  return { target: { case: 'code', value: { source } }, inputForm: textInput(input) } as const;
}

export function command(...argv: string[]) {
  return { target: { case: 'command', value: { argv } } } as const;
}

export function moduleCall(name: string, input: object = {}) {
  return { target: { case: 'module', value: name }, inputForm: textInput(input) } as const;
}

function textInput(input: object) {
  return { case: 'inputJson', value: JSON.stringify(input) } as const;
}

/** The text of a file in `test/fixtures`. */
export function fixture(name: string): string {
  return readFileSync(join(REPOSITORY, 'test', 'fixtures', name), 'utf8');
}
