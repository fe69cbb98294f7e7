import {
  type CelInput,
  CelScalar,
  type CelValue,
  celEnv,
  celFunc,
  isCelError,
  isCelList,
  isCelMap,
  isCelUint,
  parse,
  plan,
} from '@bufbuild/cel';
import { strings } from '@bufbuild/cel/ext';
import { toJson } from '@bufbuild/protobuf';
import { isReflectMessage } from '@bufbuild/protobuf/reflect';
import { messageOf, OutOfTimeError, threadCpuMs, withinTime } from '@harrier/shared';
import { type Names, namesIn } from './expression-names.ts';

/** A JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** What an expression can see, by name: `input`, `variables`, `nodes`, `run`, `item`, `index`, `output`. */
export type Bindings = Readonly<Record<string, Json>>;

/** An expression that can be evaluated again and again. */
export interface Expression {
  readonly text: string;
  /** What it refers to. */
  readonly names: Names;
  /** @param budget of a node, for all its expressions together. @throws ExpressionError */
  evaluate(bindings: Bindings, budget?: Budget): Json;
}

/** The message says what is wrong, with the expression and the value. */
export class ExpressionError extends Error {}

/** How long expressions may take, of the processor: that others take it from the control plane is not their fault. */
export interface Budget {
  leftMs: number;
}

/** Expressions are for decisions and small values; what takes longer belongs into a node that runs code. */
const MAX_MS = 250;

/** For all expressions of a node together. */
export function newBudget(): Budget {
  return { leftMs: MAX_MS };
}
/** Larger whole numbers are not exact in JSON as most read it. */
const MAX_EXACT = BigInt(Number.MAX_SAFE_INTEGER);

const ARITHMETIC: Readonly<Record<string, (a: number, b: number) => number>> = {
  '_+_': (a, b) => a + b,
  '_-_': (a, b) => a - b,
  '_*_': (a, b) => a * b,
  '_/_': (a, b) => a / b,
};

/** CEL has no arithmetic between whole and other numbers; JSON does not tell them apart, so that 2 and 2.5 would not go together. */
const MIXED_ARITHMETIC = Object.entries(ARITHMETIC).flatMap(([name, apply]) => [
  celFunc(name, [CelScalar.INT, CelScalar.DOUBLE], CelScalar.DOUBLE, (a, b) => apply(Number(a), b)),
  celFunc(name, [CelScalar.DOUBLE, CelScalar.INT], CelScalar.DOUBLE, (a, b) => apply(a, Number(b))),
]);

const ENVIRONMENT = celEnv({ funcs: [...strings, ...MIXED_ARITHMETIC] });

/** @throws ExpressionError when it is not CEL */
export function compileExpression(text: string): Expression {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(text);
  } catch (cause) {
    throw new ExpressionError(`"${text}" is not an expression: ${tidied(cause)}`, { cause });
  }
  const names = namesIn(parsed.expr);
  const run = plan(ENVIRONMENT, parsed);
  return {
    text,
    names,
    evaluate: (bindings, budget = newBudget()) => {
      const startMs = threadCpuMs();
      const seen: Record<string, CelInput> = {};
      for (const name of names.roots) {
        const value = bindings[name];
        if (value !== undefined) seen[name] = celOf(value);
      }
      try {
        return withinTime(Math.max(1, Math.round(budget.leftMs)), () => jsonOf(run(seen)));
      } catch (cause) {
        if (cause instanceof OutOfTimeError || cause instanceof ExpressionError || cause instanceof RangeError) {
          throw new ExpressionError(`"${text}" has no value: ${tidied(cause)}`, { cause });
        }
        throw cause;
      } finally {
        budget.leftMs -= threadCpuMs() - startMs;
      }
    },
  };
}

/** Expressions deep within one another, and lists that they make of many items, overflow the evaluator's stack. */
function tidied(cause: unknown): string {
  if (cause instanceof RangeError) return 'it goes too deep, or makes a list of too many items';
  return messageOf(cause).replace(/^(syntax error )?<input>:(\d+):(\d+): /, (_, _error, line, column) => {
    return line === '1' ? `at character ${column}: ` : `at line ${line}, character ${column}: `;
  });
}

/** Whole numbers become CEL's int, so that they can be counted with. */
function celOf(value: Json): CelInput {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(celOf);
  return new Map(Object.entries(value).map(([key, child]) => [key, celOf(child)]));
}

function jsonOf(value: CelValue | ReturnType<ReturnType<typeof plan>>): Json {
  if (isCelError(value)) throw new ExpressionError(value.message);
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'bigint') return numberOf(value);
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value;
    throw new ExpressionError(`it is ${value}, which JSON does not know`);
  }
  if (isCelUint(value)) return numberOf(value.value);
  if (isCelList(value)) return [...value].map(jsonOf);
  if (isCelMap(value)) {
    const entries = [...value].map(([key, child]): [string, Json] => [
      isCelUint(key) ? `${key.value}` : `${key}`,
      jsonOf(child),
    ]);
    return Object.fromEntries(entries);
  }
  if (isReflectMessage(value)) return toJson(value.desc, value.message) as Json;
  throw new ExpressionError('its value is of a kind that JSON does not know');
}

function numberOf(value: bigint): number {
  if (value > MAX_EXACT || value < -MAX_EXACT) throw new ExpressionError(`${value} is too large to be exact in JSON`);
  return Number(value);
}
