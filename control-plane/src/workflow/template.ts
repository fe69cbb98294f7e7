import { type Bindings, Budget, compileExpression, type Expression, ExpressionError, type Json } from './expression.ts';

/** A JSON value whose texts may hold expressions as `${…}`. */
export interface Template {
  readonly expressions: readonly Expression[];
  /** @throws ExpressionError */
  evaluate(bindings: Bindings, budget?: Budget): Json;
}

type Evaluate = (bindings: Bindings, budget: Budget) => Json;

/** A part of a text: as it is, or an expression. */
type Part = string | Expression;

/** @throws ExpressionError with the path within the value */
export function compileTemplate(value: Json): Template {
  const expressions: Expression[] = [];
  const evaluate = compile(value, '', expressions);
  // All at once: to watch the time costs more than most expressions do.
  return { expressions, evaluate: (bindings, budget = new Budget()) => budget.spend(() => evaluate(bindings, budget)) };
}

function compile(value: Json, path: string, found: Expression[]): Evaluate {
  if (typeof value === 'string') return compileText(value, path, found);
  if (typeof value !== 'object' || value === null) return () => value;
  if (Array.isArray(value)) {
    const items = value.map((item, i) => compile(item, `${path}[${i}]`, found));
    return (bindings, budget) => items.map((item) => item(bindings, budget));
  }
  const entries = Object.entries(value).map(([key, child]) => [key, compile(child, `${path}.${key}`, found)] as const);
  return (bindings, budget) => Object.fromEntries(entries.map(([key, child]) => [key, child(bindings, budget)]));
}

function compileText(text: string, path: string, found: Expression[]): Evaluate {
  let parts: Part[];
  try {
    parts = splitText(text);
  } catch (cause) {
    if (!(cause instanceof ExpressionError) || path === '') throw cause;
    throw new ExpressionError(`${path.replace(/^\./, '')}: ${cause.message}`, { cause });
  }
  for (const part of parts) if (typeof part !== 'string') found.push(part);
  const [only] = parts;
  if (parts.length === 0) return () => '';
  // An expression that is all there is keeps the type of its value.
  if (parts.length === 1 && only !== undefined)
    return typeof only === 'string' ? () => only : (bindings, budget) => only.evaluate(bindings, budget);
  return (bindings, budget) =>
    parts.map((part) => (typeof part === 'string' ? part : textOf(part.evaluate(bindings, budget)))).join('');
}

/** `$${` stands for `${` as it is. @throws ExpressionError */
function splitText(text: string): Part[] {
  const parts: Part[] = [];
  let plain = '';
  let at = 0;
  while (at < text.length) {
    if (text.startsWith('$${', at)) {
      plain += '${';
      at += 3;
    } else if (text.startsWith('${', at)) {
      const end = endOfExpression(text, at + 2);
      if (plain !== '') parts.push(plain);
      plain = '';
      parts.push(compileExpression(text.slice(at + 2, end)));
      at = end + 1;
    } else plain += text[at++];
  }
  if (plain !== '') parts.push(plain);
  return parts;
}

/** The brace that closes it, outside of texts and braces of its own. */
function endOfExpression(text: string, from: number): number {
  let depth = 0;
  let quote = '';
  for (let at = from; at < text.length; at++) {
    const char = text[at];
    if (quote !== '') {
      if (char === '\\') at++;
      else if (char === quote) quote = '';
    } else if (char === '"' || char === "'") quote = char;
    else if (char === '{') depth++;
    else if (char === '}' && depth-- === 0) return at;
  }
  throw new ExpressionError(`"${text}" opens an expression with \${ and does not close it`);
}

function textOf(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
