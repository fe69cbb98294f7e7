import type { Workflow, WorkflowEdge, WorkflowGraph, WorkflowNode } from '@harrier/shared/gen/workflow';

/** How each kind of node is drawn: what opens and closes its shape. */
const SHAPES: Readonly<Record<string, readonly [string, string]>> = {
  run: ['[', ']'],
  condition: ['{', '}'],
  workflow: ['[[', ']]'],
  wait: ['([', '])'],
  signal: ['[/', '/]'],
  transform: ['(', ')'],
};

/** A workflow as a Mermaid flowchart; maps with a graph are subgraphs. */
export function formatMermaid(workflow: Workflow): string {
  return `${['flowchart TD', ...graphLines(workflow, '', '  ')].join('\n')}\n`;
}

function graphLines(
  { nodes, edges }: Pick<Workflow | WorkflowGraph, 'nodes' | 'edges'>,
  prefix: string,
  indent: string,
): string[] {
  return [
    ...nodes.flatMap((node) => nodeLines(node, prefix, indent)),
    ...edges.map((edge) => `${indent}${prefix}${name(edge.from)} -->${labelOf(edge)} ${prefix}${name(edge.to)}`),
  ];
}

function nodeLines(node: WorkflowNode, prefix: string, indent: string): string[] {
  const { id, kind } = node;
  if (kind.case === 'map' && kind.value.body.case === 'graph') {
    const within = graphLines(kind.value.body.value, `${prefix}${name(id)}_`, `${indent}  `);
    return [
      `${indent}subgraph ${prefix}${name(id)}["${quoted(`${id}: for each of ${kind.value.items}`)}"]`,
      ...within,
      `${indent}end`,
    ];
  }
  const [open, close] = SHAPES[kind.case === 'map' ? 'run' : (kind.case ?? 'run')] ?? ['[', ']'];
  return [`${indent}${prefix}${name(id)}${open}"${quoted(titleOf(node))}"${close}`];
}

function titleOf({ id, kind }: WorkflowNode): string {
  switch (kind.case) {
    case 'run':
      return kind.value.target.case === 'module'
        ? `${id}: ${kind.value.target.value}`
        : `${id}: ${kind.value.target.case ?? ''}`;
    case 'map':
      return `${id}: for each of ${kind.value.items}`;
    case 'workflow':
      return `${id}: ${kind.value.name}`;
    default:
      return `${id}: ${kind.case ?? ''}`;
  }
}

function labelOf({ when, default: isDefault }: WorkflowEdge): string {
  if (isDefault) return '|default|';
  return when === '' ? '' : `|"${quoted(when)}"|`;
}

/** Dashes are arrows to Mermaid. */
function name(id: string): string {
  return id.replaceAll('-', '_');
}

/** Mermaid takes entities for what would end a text. */
function quoted(text: string): string {
  return text.replaceAll('&', '#amp;').replaceAll('"', '#quot;').replaceAll('<', '#lt;').replaceAll('>', '#gt;');
}
