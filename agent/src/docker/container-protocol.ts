import { MAX_DOCUMENT_DEPTH } from '@harrier/shared';

/** Source text that a runner image is to run, beside the input. */
export interface RunnerModule {
  source: string;
  handler: string;
  filename: string;
}

export interface ContainerRequest {
  /** JSON text; empty: none. */
  schemaIn: string;
  schemaOut: string;
  /** JSON text. */
  input: Uint8Array;
  /** Only for Harrier's runner images. */
  module: RunnerModule | undefined;
}

/** What a container has answered. */
export type ContainerResponse =
  | { kind: 'ok'; output: string }
  | { kind: 'error'; code: string; message: string; details: unknown }
  | { kind: 'invalid'; problem: string };

/** Every value satisfies it. */
const NO_SCHEMA = '{}';
const MAX_TEXT_CHARS = 4096;

/**
 * The document for the container's standard input:
 * `{"schema_in": …, "schema_out": …, "input": …}`, and for runner images `"module": {"source", "handler", "filename"}`.
 * JSON texts are put in as they came.
 */
export function requestDocument({ schemaIn, schemaOut, input, module }: ContainerRequest): Uint8Array {
  const head = `{"schema_in":${schemaIn || NO_SCHEMA},"schema_out":${schemaOut || NO_SCHEMA},"input":`;
  const tail = module === undefined ? '}\n' : `,"module":${JSON.stringify(module)}}\n`;
  return Buffer.concat([Buffer.from(head), input, Buffer.from(tail)]);
}

/**
 * Reads the document that the container wrote to its standard output: `{"ok": true, "output": {…}}`, or
 * `{"ok": false, "error": {"message", "code", "details"}}`. The output is the very text that stands there.
 */
export function parseResponse(stdout: Uint8Array): ContainerResponse {
  let text: string;
  let document: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(stdout);
  } catch {
    return invalid('standard output is not UTF-8');
  }
  if (text.trim() === '') return invalid('nothing was written to standard output');
  try {
    document = JSON.parse(text);
  } catch (error) {
    return invalid(`standard output is not one JSON document: ${(error as Error).message}`);
  }
  if (!isObject(document)) return invalid('standard output is not a JSON object');
  if (document.ok === false) return errorOf(document.error);
  if (document.ok !== true) return invalid('"ok" is neither true nor false');
  if (!isObject(document.output)) return invalid('"output" is not a JSON object');
  const { value, depth } = lastMember(text, 'output');
  if (depth > MAX_DOCUMENT_DEPTH) return invalid(`"output" is nested deeper than ${MAX_DOCUMENT_DEPTH}`);
  return { kind: 'ok', output: value };
}

function invalid(problem: string): ContainerResponse {
  return { kind: 'invalid', problem };
}

function errorOf(error: unknown): ContainerResponse {
  if (!isObject(error)) return invalid('"ok" is false, and "error" is not an object');
  const text = (value: unknown): string => (typeof value === 'string' ? value.slice(0, MAX_TEXT_CHARS) : '');
  return { kind: 'error', code: text(error.code), message: text(error.message), details: error.details };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The text of the last member of that name in an object that the parser has accepted; the parser takes the last too. */
function lastMember(text: string, name: string): { value: string; depth: number } {
  let found = { value: '', depth: 0 };
  let position = text.indexOf('{') + 1;
  for (;;) {
    position = skipSpace(text, position);
    if (text[position] === '}') return found;
    if (text[position] === ',') position = skipSpace(text, position + 1);
    const keyEnd = skipString(text, position);
    const key = JSON.parse(text.slice(position, keyEnd));
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const { end, depth } = skipValue(text, start);
    if (key === name) found = { value: text.slice(start, end), depth };
    position = end;
  }
}

function skipSpace(text: string, from: number): number {
  let position = from;
  while (' \t\n\r'.includes(text[position] ?? '-')) position++;
  return position;
}

/** @param from position of the opening quote */
function skipString(text: string, from: number): number {
  let position = from + 1;
  while (text[position] !== '"') position += text[position] === '\\' ? 2 : 1;
  return position + 1;
}

function skipValue(text: string, from: number): { end: number; depth: number } {
  let position = from;
  let level = 0;
  let depth = 0;
  for (;;) {
    const character = text[position] ?? '';
    if (character === '"') position = skipString(text, position);
    else {
      if (character === '{' || character === '[') depth = Math.max(depth, ++level);
      else if (level > 0 && (character === '}' || character === ']')) level--;
      else if (level === 0 && ',}] \t\n\r'.includes(character)) return { end: position, depth };
      position++;
    }
    if (level === 0 && depth > 0) return { end: position, depth };
  }
}
