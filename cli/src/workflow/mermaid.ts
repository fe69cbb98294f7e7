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

/**
 * A workflow as a Mermaid flowchart; maps with a graph are subgraphs. Names are made of positions, and what people call a node
 * stands in its text: `end` and other ids are words of Mermaid's own, and dashes are its arrows.
 */
export function formatMermaid(workflow: Workflow): string {
  return `${['flowchart TD', ...graphLines(workflow, 'n', '  ')].join('\n')}\n`;
}

function graphLines(
  { nodes, edges }: Pick<Workflow | WorkflowGraph, 'nodes' | 'edges'>,
  prefix: string,
  indent: string,
): string[] {
  const names = new Map(nodes.map(({ id }, position) => [id, `${prefix}${position}`]));
  return [
    ...nodes.flatMap((node, position) => nodeLines(node, `${prefix}${position}`, indent)),
    ...edges.map((edge) => `${indent}${names.get(edge.from)} -->${labelOf(edge)} ${names.get(edge.to)}`),
  ];
}

function nodeLines(node: WorkflowNode, name: string, indent: string): string[] {
  const { kind } = node;
  if (kind.case === 'map' && kind.value.body.case === 'graph') {
    const within = graphLines(kind.value.body.value, `${name}_`, `${indent}  `);
    return [`${indent}subgraph ${name}["${quoted(titleOf(node))}"]`, ...within, `${indent}end`];
  }
  const [open, close] = SHAPES[kind.case === 'map' ? 'run' : (kind.case ?? 'run')] ?? ['[', ']'];
  return [`${indent}${name}${open}"${quoted(titleOf(node))}"${close}`];
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
  if (isDefault) return '|"default"|';
  return when === '' ? '' : `|"${quoted(when)}"|`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '#': '#35;',
  '%': '#37;',
  '&': '#amp;',
  '"': '#quot;',
  '<': '#lt;',
  '>': '#gt;',
};

/**
 * Mermaid takes entities for what would end a text, be an entity, or (`%%{`) be a setting of its own. An expression may be of several
 * lines; a text is of one.
 */
function quoted(text: string): string {
  return text.replace(/\s+/g, ' ').replace(/[#%&"<>]/g, (character) => ENTITIES[character] ?? character);
}
