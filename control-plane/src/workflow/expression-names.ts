import type { parse } from '@bufbuild/cel';

type Expr = ReturnType<typeof parse>['expr'];

/** Where a value is: a name, and what is selected from it. */
export type Chain = readonly (string | number)[];

/** What an expression refers to. */
export interface Names {
  /** Free names, for example `input`. */
  roots: ReadonlySet<string>;
  /** Nodes that it names, as `nodes.a` or `nodes["a"]`. */
  nodes: ReadonlySet<string>;
  /** It uses `nodes` in another way: any of them may be meant. */
  anyNode: boolean;
  /** The values that it reads, each as far as it says where it is, for example `nodes.a.output.list[0]`. */
  chains: readonly Chain[];
}

/** Longer ones are looked at in parts. */
const MAX_CHAIN = 64;

/** Finds the names in an expression, without those that its own comprehensions bind. */
export function namesIn(expr: Expr): Names {
  const roots = new Set<string>();
  const nodes = new Set<string>();
  const chains: Chain[] = [];
  let anyNode = false;
  /** @param inChain it is a part of a chain that is known */
  const visit = (at: Expr | undefined, bound: ReadonlySet<string>, inChain = false): void => {
    const kind = at?.exprKind;
    const chain = inChain ? undefined : chainOf(at, bound);
    if (chain !== undefined) chains.push(chain);
    const within = inChain || chain !== undefined;
    switch (kind?.case) {
      case 'identExpr':
        if (bound.has(kind.value.name)) return;
        roots.add(kind.value.name);
        if (kind.value.name === 'nodes') anyNode = true;
        return;
      case 'selectExpr':
        if (isNodes(kind.value.operand, bound)) nameNode(kind.value.field);
        else visit(kind.value.operand, bound, within);
        return;
      case 'callExpr': {
        const { target, args } = kind.value;
        const [operand, index] = indexed(at) ?? [];
        if (isNodes(operand, bound) && typeof index === 'string') {
          nameNode(index);
          return;
        }
        visit(target, bound, within);
        for (const arg of args) visit(arg, bound, within);
        return;
      }
      case 'listExpr':
        for (const element of kind.value.elements) visit(element, bound);
        return;
      case 'structExpr':
        for (const { keyKind, value } of kind.value.entries) {
          if (keyKind.case === 'mapKey') visit(keyKind.value, bound);
          visit(value, bound);
        }
        return;
      case 'comprehensionExpr': {
        const { iterRange, accuInit, loopCondition, loopStep, result, iterVar, iterVar2, accuVar } = kind.value;
        visit(iterRange, bound);
        visit(accuInit, bound);
        const own = new Set([...bound, accuVar, iterVar, iterVar2].filter((name) => name !== ''));
        for (const part of [loopCondition, loopStep, result]) visit(part, own);
        return;
      }
      default:
    }
  };
  const nameNode = (id: string): void => {
    roots.add('nodes');
    nodes.add(id);
  };
  visit(expr, new Set());
  return { roots, nodes, anyNode, chains };
}

/** Undefined: it is not only a name and what is selected from it. */
function chainOf(expr: Expr | undefined, bound: ReadonlySet<string>): Chain | undefined {
  const parts: (string | number)[] = [];
  let at = expr;
  while (parts.length < MAX_CHAIN) {
    const kind = at?.exprKind;
    if (kind?.case === 'identExpr')
      return bound.has(kind.value.name) ? undefined : [kind.value.name, ...parts.toReversed()];
    const [operand, part] = kind?.case === 'selectExpr' ? [kind.value.operand, kind.value.field] : (indexed(at) ?? []);
    if (part === undefined) return undefined;
    parts.push(part);
    at = operand;
  }
  return undefined;
}

/** Of `a["b"]` and `a[0]`. */
function indexed(expr: Expr | undefined): [operand: Expr | undefined, index: string | number] | undefined {
  if (expr?.exprKind.case !== 'callExpr' || expr.exprKind.value.function !== '_[_]') return undefined;
  const [operand, index] = expr.exprKind.value.args;
  const literal = index?.exprKind.case === 'constExpr' ? index.exprKind.value.constantKind : undefined;
  if (literal?.case === 'stringValue') return [operand, literal.value];
  return literal?.case === 'int64Value' ? [operand, Number(literal.value)] : undefined;
}

function isNodes(expr: Expr | undefined, bound: ReadonlySet<string>): boolean {
  return expr?.exprKind.case === 'identExpr' && expr.exprKind.value.name === 'nodes' && !bound.has('nodes');
}
