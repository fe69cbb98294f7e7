export interface JsonError {
  /** From 1. */
  line: number;
  /** From 1, in UTF-16 units. */
  column: number;
  problem: string;
}

/**
 * Where and why a text is not JSON (RFC 8259); undefined when it is. Used only after `JSON.parse` has failed, whose own
 * messages leave out the position more often than not. Needs no stack for nested values.
 */
export function findJsonError(text: string): JsonError | undefined {
  const problem = scan(text);
  if (problem === undefined) return undefined;
  const before = text.slice(0, problem.at);
  const lineStart = before.lastIndexOf('\n') + 1;
  let line = 1;
  for (let at = before.indexOf('\n'); at !== -1; at = before.indexOf('\n', at + 1)) line++;
  return { line, column: problem.at - lineStart + 1, problem: problem.text };
}

interface Problem {
  at: number;
  text: string;
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const LITERAL = /true|false|null/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

function scan(text: string): Problem | undefined {
  const closers: string[] = [];
  let at = skipSpace(text, 0);
  for (;;) {
    // A value starts at `at`.
    const char = text[at];
    if (char === '{' || char === '[') {
      const closer = char === '{' ? '}' : ']';
      at = skipSpace(text, at + 1);
      if (text[at] === closer) {
        at++;
      } else {
        closers.push(closer);
        if (closer === ']') continue;
        const key = scanKey(text, at);
        if (typeof key !== 'number') return key;
        at = key;
        continue;
      }
    } else {
      const end = scanScalar(text, at);
      if (typeof end !== 'number') return end;
      at = end;
    }
    // A value ended at `at`: close what closes, until another value must follow.
    for (;;) {
      at = skipSpace(text, at);
      const closer = closers.at(-1);
      if (closer === undefined) return at === text.length ? undefined : unexpected(text, at, 'the end');
      if (text[at] === closer) {
        closers.pop();
        at++;
        continue;
      }
      if (text[at] !== ',') return unexpected(text, at, `"," or "${closer}"`);
      at = skipSpace(text, at + 1);
      if (closer === '}') {
        const key = scanKey(text, at);
        if (typeof key !== 'number') return key;
        at = key;
      }
      break;
    }
  }
}

/** A key, its colon, and the space after it. */
function scanKey(text: string, start: number): number | Problem {
  if (text[start] !== '"') return unexpected(text, start, 'a property name in double quotes');
  const end = scanString(text, start);
  if (typeof end !== 'number') return end;
  const colon = skipSpace(text, end);
  if (text[colon] !== ':') return unexpected(text, colon, '":"');
  return skipSpace(text, colon + 1);
}

function scanScalar(text: string, start: number): number | Problem {
  if (text[start] === '"') return scanString(text, start);
  for (const token of [NUMBER, LITERAL]) {
    token.lastIndex = start;
    if (token.test(text)) return token.lastIndex;
  }
  return unexpected(text, start, 'a value');
}

function scanString(text: string, start: number): number | Problem {
  let at = start + 1;
  for (;;) {
    const char = text[at];
    if (char === undefined) return { at, text: 'the text ends inside a string' };
    if (char === '"') return at + 1;
    if (char < ' ') return { at, text: 'a control character in a string must be escaped' };
    if (char !== '\\') {
      at++;
      continue;
    }
    ESCAPE.lastIndex = at;
    if (!ESCAPE.test(text)) return { at, text: 'bad escape in a string' };
    at = ESCAPE.lastIndex;
  }
}

function skipSpace(text: string, start: number): number {
  let at = start;
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at++;
  return at;
}

function unexpected(text: string, at: number, expected: string): Problem {
  if (at >= text.length) return { at: text.length, text: `the text ends where ${expected} was expected` };
  const char = String.fromCodePoint(text.codePointAt(at) ?? 0);
  return { at, text: `expected ${expected}, got ${JSON.stringify(char)}` };
}
