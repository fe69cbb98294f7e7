import type { parse } from '@bufbuild/cel';

type Expr = ReturnType<typeof parse>['expr'];

/** What an expression refers to. */
export interface Names {
  /** Free names, for example `input`. */
  roots: ReadonlySet<string>;
  /** Nodes that it names, as `nodes.a` or `nodes["a"]`. */
  nodes: ReadonlySet<string>;
  /** It uses `nodes` in another way: any of them may be meant. */
  anyNode: boolean;
}

/** Finds the names in an expression, without those that its own comprehensions bind. */
export function namesIn(expr: Expr): Names {
  const roots = new Set<string>();
  const nodes = new Set<string>();
  let anyNode = false;
  const visit = (at: Expr | undefined, bound: ReadonlySet<string>): void => {
    const kind = at?.exprKind;
    switch (kind?.case) {
      case 'identExpr':
        if (bound.has(kind.value.name)) return;
        roots.add(kind.value.name);
        if (kind.value.name === 'nodes') anyNode = true;
        return;
      case 'selectExpr':
        if (isNodes(kind.value.operand, bound)) nameNode(kind.value.field);
        else visit(kind.value.operand, bound);
        return;
      case 'callExpr': {
        const { function: name, target, args } = kind.value;
        const [operand, index] = args;
        const literal = index?.exprKind.case === 'constExpr' ? index.exprKind.value.constantKind : undefined;
        if (name === '_[_]' && isNodes(operand, bound) && literal?.case === 'stringValue') {
          nameNode(literal.value);
          return;
        }
        visit(target, bound);
        for (const arg of args) visit(arg, bound);
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
        const within = new Set([...bound, accuVar, iterVar, iterVar2].filter((name) => name !== ''));
        for (const part of [loopCondition, loopStep, result]) visit(part, within);
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
  return { roots, nodes, anyNode };
}

function isNodes(expr: Expr | undefined, bound: ReadonlySet<string>): boolean {
  return expr?.exprKind.case === 'identExpr' && expr.exprKind.value.name === 'nodes' && !bound.has('nodes');
}
