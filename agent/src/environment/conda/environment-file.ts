import { createRequire } from 'node:module';
import { ENVIRONMENT_BOUNDS } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Environment_Conda as Conda } from '@harrier/shared/gen/module';
import type { Node } from 'yaml';
import { checkLength, checkTexts } from '../bounded-text.ts';
import { EnvironmentError } from '../environment.ts';

/** What a conda environment is to hold. */
export interface CondaSpec {
  /** Match specifications. */
  dependencies: string[];
  /** Names or URLs, the first preferred; empty: those of the agent. */
  channels: string[];
  /** Requirements for pip, installed after the packages. */
  pip: string[];
}

// Loaded with the first environment.yml: 9 MiB that most agents never need.
const require = createRequire(import.meta.url);

/** Keys of an environment.yml that say nothing of what is installed. */
const IGNORED = new Set(['name', 'prefix']);

/**
 * What a request asks for: its `environment.yml`, or its lists.
 * @throws EnvironmentError with the line of the file that is wrong
 */
export function specOf(conda: Conda): CondaSpec {
  if (conda.file !== '') return parseEnvironmentFile(conda.file);
  checkTexts('dependencies', conda.dependencies);
  checkTexts('channels', conda.channels);
  return { dependencies: conda.dependencies, channels: conda.channels, pip: [] };
}

/** @throws EnvironmentError with the line that is wrong */
export function parseEnvironmentFile(text: string): CondaSpec {
  const { isMap, isScalar, isSeq, LineCounter, parseDocument } = require('yaml') as typeof import('yaml');
  checkLength('environment.yml', text, ENVIRONMENT_BOUNDS.condaFileChars);
  const lines = new LineCounter();
  // Both would compare each key, and look each mistake up, in time that grows with the square of the text.
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: false, prettyErrors: false });
  const lineOf = (node: unknown) => lines.linePos((node as Node | undefined)?.range?.[0] ?? 0).line;
  const fail = (node: unknown, message: string): never => {
    throw failed(`environment.yml line ${lineOf(node)}: ${message}`);
  };
  const [fault] = document.errors;
  if (fault !== undefined)
    throw failed(`environment.yml line ${lines.linePos(fault.pos[0]).line}: ${fault.message.split('\n')[0]}`);
  const root = document.contents;
  if (!isMap(root)) return fail(root, 'must be a map with dependencies');
  const spec: CondaSpec = { dependencies: [], channels: [], pip: [] };
  const textsOf = (node: unknown, name: string): string[] => {
    if (!isSeq(node)) return fail(node, `${name} must be a list`);
    return node.items.map((item) => {
      if (isScalar(item) && typeof item.value === 'string') return item.value;
      return fail(item, `${name} must be a list of texts`);
    });
  };
  const names = new Set<string>();
  for (const { key, value } of root.items) {
    const name = isScalar(key) ? String(key.value) : '';
    if (names.has(name)) fail(key, `"${name}" is there twice`);
    names.add(name);
    if (name === 'channels') spec.channels = textsOf(value, name);
    else if (name === 'dependencies') {
      if (!isSeq(value)) return fail(value ?? key, 'dependencies must be a list');
      for (const item of value.items) {
        if (isMap(item) && item.items.length === 1 && item.has('pip'))
          spec.pip.push(...textsOf(item.get('pip', true), 'pip'));
        else if (isScalar(item) && typeof item.value === 'string') spec.dependencies.push(item.value);
        else fail(item, 'a dependency must be a text, or a map with the key pip');
      }
    } else if (!IGNORED.has(name)) fail(key, `"${name}" is not known; there are name, channels and dependencies`);
  }
  if (spec.dependencies.length === 0) return fail(root, 'there are no dependencies');
  for (const [what, texts] of Object.entries(spec)) checkTexts(what, texts);
  return spec;
}

function failed(message: string): EnvironmentError {
  return new EnvironmentError(Code.ENVIRONMENT_FAILED, message);
}
