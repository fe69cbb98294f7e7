import { ENVIRONMENT_BOUNDS } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { EnvironmentError } from './environment.ts';

/** @throws EnvironmentError for a text that is too long to be read for every call */
export function checkLength(what: string, text: string, maxChars: number): void {
  if (text.length > maxChars) throw tooLong(what, text.length, maxChars);
}

/** Requirements, dependencies and the like. @throws EnvironmentError for one that is too long, and for all together */
export function checkTexts(what: string, texts: readonly string[]): void {
  const { requirementChars, requirementsChars } = ENVIRONMENT_BOUNDS;
  let chars = 0;
  for (const [index, text] of texts.entries()) {
    checkLength(`${what}[${index}]`, text, requirementChars);
    // As in a file: an empty one counts too.
    chars += text.length + 1;
  }
  if (chars > requirementsChars) throw tooLong(`${what} together`, chars, requirementsChars);
}

function tooLong(what: string, chars: number, maxChars: number): EnvironmentError {
  return new EnvironmentError(Code.ENVIRONMENT_FAILED, `${what}: ${chars} characters, at most ${maxChars} are read`);
}
