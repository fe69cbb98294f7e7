import { type CelInput, CelScalar, celEnv, celFunc, parse, plan } from '@bufbuild/cel';
import { strings } from '@bufbuild/cel/ext';
import { messageOf } from '@harrier/shared';
import { Budget, type Failed } from './expression-budget.ts';
import { type Names, namesIn } from './expression-names.ts';
import { celOf, ExpressionError, type Json, jsonOf } from './expression-value.ts';
import { shownValues } from './shown-value.ts';

export { Budget } from './expression-budget.ts';
export { ExpressionError, type Json } from './expression-value.ts';

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
    evaluate: (bindings, budget = new Budget()) => {
      const failed: Failed = (reason, cause) => {
        // What was not begun, because nothing was left for it, has read nothing.
        const values = cause === undefined ? '' : shownValues(bindings, names.chains);
        return new ExpressionError(`"${text}" has no value: ${reason}${values === '' ? '' : `; ${values}`}`, { cause });
      };
      return budget.spend(() => {
        try {
          return jsonOf(run(seen(bindings, names)), (chars) => budget.count(chars));
        } catch (cause) {
          if (cause instanceof ExpressionError || cause instanceof RangeError) throw failed(tidied(cause), cause);
          throw cause;
        }
      }, failed);
    },
  };
}

function seen(bindings: Bindings, { roots }: Names): Record<string, CelInput> {
  const found: Record<string, CelInput> = {};
  for (const name of roots) {
    const value = bindings[name];
    if (value !== undefined) found[name] = celOf(value);
  }
  return found;
}

/** Expressions deep within one another, and lists that they make of many items, overflow the evaluator's stack. */
function tidied(cause: unknown): string {
  if (cause instanceof RangeError) return 'it goes too deep, or makes a list of too many items';
  return messageOf(cause).replace(/^(syntax error )?<input>:(\d+):(\d+): /, (_, _error, line, column) => {
    return line === '1' ? `at character ${column}: ` : `at line ${line}, character ${column}: `;
  });
}
