import { toJson } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { compileExpression, type Expression, type Json } from './expression.ts';
import type { Graph, GraphNode } from './graph.ts';
import { compileTemplate, type Template } from './template.ts';

/** The expressions of a node, parsed once. */
export interface NodeExpressions {
  input: Template | undefined;
  /** Of each edge that leaves it, by index; undefined: it has no condition. */
  edges: readonly (Expression | undefined)[];
  variables: readonly (readonly [name: string, expression: Expression])[];
  /** The list of a map, the time of a wait, the value of a transform. */
  value: Expression | undefined;
}

const NODES = new WeakMap<GraphNode, NodeExpressions>();
const OUTPUTS = new WeakMap<Graph, Template>();

export function expressionsOf(node: GraphNode): NodeExpressions {
  let found = NODES.get(node);
  if (found === undefined) {
    const { input, setVariables } = node.definition;
    const value = valueText(node);
    found = {
      input: input === undefined ? undefined : compileTemplate(toJson(ValueSchema, input) as Json),
      edges: node.outgoing.map(({ when }) => (when === '' ? undefined : compileExpression(when))),
      variables: Object.entries(setVariables).map(([name, text]) => [name, compileExpression(text)] as const),
      value: value === undefined ? undefined : compileExpression(value),
    };
    NODES.set(node, found);
  }
  return found;
}

/** The template of a graph's output, if it has one. */
export function outputOf(graph: Graph): Template | undefined {
  const { output } = graph.definition;
  if (output === undefined) return undefined;
  let found = OUTPUTS.get(graph);
  if (found === undefined) {
    found = compileTemplate(toJson(ValueSchema, output) as Json);
    OUTPUTS.set(graph, found);
  }
  return found;
}

function valueText({ definition: { kind } }: GraphNode): string | undefined {
  if (kind.case === 'map') return kind.value.items;
  if (kind.case === 'transform') return kind.value.expression;
  return kind.case === 'wait' && kind.value.until.case === 'time' ? kind.value.until.value : undefined;
}
