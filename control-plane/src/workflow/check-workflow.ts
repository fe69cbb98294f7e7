import { toJson } from '@bufbuild/protobuf';
import { type Value, ValueSchema } from '@bufbuild/protobuf/wkt';
import { documentFault, MAX_DOCUMENT_DEPTH, messageOf } from '@harrier/shared';
import type {
  Workflow,
  WorkflowEdge,
  WorkflowGraph,
  WorkflowNode_Map as WorkflowMap,
  WorkflowNode,
} from '@harrier/shared/gen/workflow';
import { ancestorsOf, BitSet } from './ancestors.ts';
import { compileExpression, type Expression, ExpressionError, type Json } from './expression.ts';
import { compileTemplate } from './template.ts';

/** Nodes of a workflow, those within maps included. */
export const MAX_NODES = 5_000;
/** Maps within maps. */
const MAX_DEPTH = 8;

/** What is wrong with a definition, and where: a path like `nodes[3].map.items`. */
export interface WorkflowProblem {
  path: string;
  message: string;
}

/** What an expression may name. */
interface Scope {
  roots: ReadonlySet<string>;
  /** Nodes of the graph and those around it. */
  known: ReadonlySet<string>;
  /** Those of them that have ended when it is evaluated. */
  before: (id: string) => boolean;
}

const ROOTS = ['input', 'variables', 'nodes', 'run'];

/**
 * Checks everything about a definition that can be known without running it and without other workflows.
 * @param checkSchema throws what is wrong with a JSON Schema
 */
export function checkWorkflow(
  workflow: Workflow,
  checkSchema: (schema: Json, path: string) => void,
): { problems: WorkflowProblem[]; warnings: WorkflowProblem[] } {
  const checker = new Checker(checkSchema);
  if (workflow.inputSchema !== undefined) checker.schema(workflow.inputSchema as Json, 'input_schema', 0);
  if (workflow.variables !== undefined) checker.document(workflow.variables as Json, 'variables', 0);
  checker.graph(workflow, '', { roots: new Set(ROOTS), known: new Set(), before: () => false }, 0);
  return checker;
}

class Checker {
  readonly problems: WorkflowProblem[] = [];
  readonly warnings: WorkflowProblem[] = [];
  readonly #checkSchema: (schema: Json, path: string) => void;
  #nodes = 0;

  constructor(checkSchema: (schema: Json, path: string) => void) {
    this.#checkSchema = checkSchema;
  }

  graph(graph: Workflow | WorkflowGraph, path: string, outer: Scope, depth: number): void {
    const positions = this.#positions(graph, path, outer);
    if (this.#nodes > MAX_NODES) return;
    const edges = this.#edges(graph, path, positions);
    const found = ancestorsOf(graph.nodes.length, edges);
    if ('cycle' in found) {
      const names = found.cycle.map((position) => graph.nodes[position]?.id ?? '');
      this.#problem(`${path}edges`, `the edges lead in a circle: ${[...names, names[0]].join(' → ')}`);
    }
    const known = new Set([...outer.known, ...positions.keys()]);
    const scopeOf = (position: number, itself: boolean): Scope => ({
      roots: outer.roots,
      known,
      before: (id) => {
        const other = positions.get(id);
        if (other === undefined) return outer.before(id);
        if ('cycle' in found) return true;
        return (itself && other === position) || (found.before[position] ?? new BitSet(0)).has(other);
      },
    });
    const leavingOf = Map.groupBy(graph.edges, ({ from }) => from);
    graph.nodes.forEach((node, position) => {
      const leaving = leavingOf.get(node.id) ?? [];
      this.#node(node, `${path}nodes[${position}]`, scopeOf(position, false), leaving, depth);
    });
    graph.edges.forEach((edge, i) => {
      const from = positions.get(edge.from);
      if (edge.when === '' || from === undefined) return;
      this.#expression(edge.when, `${path}edges[${i}].when`, withNames(scopeOf(from, true), 'output'));
    });
    if (graph.output !== undefined) {
      const all = { roots: outer.roots, known, before: (id: string) => positions.has(id) || outer.before(id) };
      this.#template(graph.output, `${path}output`, all, depth);
    }
  }

  /** @param depth maps around it: each takes as much of what readers accept as a level of the document does */
  document(document: Json, path: string, depth: number): boolean {
    const fault = documentFault(document, MAX_DOCUMENT_DEPTH - depth);
    if (fault !== undefined) this.#problem(`${path}${fault.path}`, fault.problem);
    return fault === undefined;
  }

  schema(schema: Json, path: string, depth: number): void {
    if (!this.document(schema, path, depth)) return;
    try {
      this.#checkSchema(schema, path);
    } catch (error) {
      this.#problem(path, messageOf(error).replace(`${path}: `, ''));
    }
  }

  #positions(graph: Workflow | WorkflowGraph, path: string, outer: Scope): Map<string, number> {
    const positions = new Map<string, number>();
    this.#nodes += graph.nodes.length;
    if (this.#nodes > MAX_NODES) this.#problem(`${path}nodes`, `there are more than ${MAX_NODES} nodes`);
    graph.nodes.forEach(({ id }, position) => {
      const first = positions.get(id);
      if (first !== undefined)
        this.#problem(`${path}nodes[${position}].id`, `"${id}" is also the id of nodes[${first}]`);
      else if (outer.known.has(id)) {
        this.#problem(`${path}nodes[${position}].id`, `"${id}" is also the id of a node around this graph`);
      }
      positions.set(id, first ?? position);
    });
    return positions;
  }

  /** @returns the edges between nodes that there are */
  #edges({ edges }: Workflow | WorkflowGraph, path: string, positions: ReadonlyMap<string, number>) {
    const seen = new Map<string, number>();
    return edges.flatMap((edge, i) => {
      const from = positions.get(edge.from);
      const to = positions.get(edge.to);
      if (from === undefined) this.#problem(`${path}edges[${i}].from`, `there is no node "${edge.from}"`);
      if (to === undefined) this.#problem(`${path}edges[${i}].to`, `there is no node "${edge.to}"`);
      const key = JSON.stringify([edge.from, edge.to]);
      const first = seen.get(key);
      if (first !== undefined) {
        this.#problem(`${path}edges[${i}]`, `edges[${first}] leads from "${edge.from}" to "${edge.to}" too`);
      }
      seen.set(key, first ?? i);
      return from === undefined || to === undefined ? [] : [{ from, to }];
    });
  }

  #node(node: WorkflowNode, path: string, scope: Scope, leaving: readonly WorkflowEdge[], depth: number): void {
    const { kind } = node;
    this.#leavingEdges(node, path, leaving);
    if (node.input !== undefined) {
      const inBody = kind.case === 'map' ? withNames(scope, 'item', 'index') : scope;
      const takesInput = kind.case === 'run' || kind.case === 'map' || kind.case === 'workflow';
      if (!takesInput) this.#problem(`${path}.input`, `a ${kind.case} takes no input`);
      this.#template(node.input, `${path}.input`, inBody, depth);
    }
    for (const [name, text] of Object.entries(node.setVariables)) {
      const after = { ...withNames(scope, 'output'), before: (id: string) => id === node.id || scope.before(id) };
      this.#expression(text, `${path}.set_variables.${name}`, after);
    }
    switch (kind.case) {
      case 'run':
        this.#run(kind.value, `${path}.run`);
        return;
      case 'map':
        this.#map(kind.value, `${path}.map`, scope, depth);
        return;
      case 'wait':
        if (kind.value.until.case === 'time') this.#expression(kind.value.until.value, `${path}.wait.time`, scope);
        return;
      case 'signal':
        if (kind.value.schema !== undefined) this.schema(kind.value.schema as Json, `${path}.signal.schema`, depth);
        return;
      case 'transform':
        this.#expression(kind.value.expression, `${path}.transform.expression`, scope);
        return;
      default:
    }
  }

  #leavingEdges({ id, kind }: WorkflowNode, path: string, leaving: readonly WorkflowEdge[]): void {
    const defaults = leaving.filter((edge) => edge.default).length;
    if (defaults > 1) this.#problem(path, `${defaults} edges of "${id}" are its default; one can be`);
    if (leaving.some((edge) => edge.default && edge.when !== '')) {
      this.#problem(path, `the default edge of "${id}" has a condition`);
    }
    if (kind.case !== 'condition') {
      if (defaults === 1 && leaving.every(({ when }) => when === '')) {
        this.#problem(path, `"${id}" has a default edge and none with a condition`);
      }
      return;
    }
    const always = leaving.find((edge) => edge.when === '' && !edge.default);
    if (always !== undefined) {
      this.#problem(path, `the edge from the condition "${id}" to "${always.to}" needs "when", or "default: true"`);
    }
    if (defaults === 0) this.#warn(path, `the condition "${id}" has no default edge: what follows it may be skipped`);
  }

  #run(
    run: { inputForm: { case: string | undefined }; idempotencyKey: string; target: { case: string | undefined } },
    path: string,
  ): void {
    if (run.target.case === undefined) this.#problem(path, 'one of module, code, command and image is required');
    if (run.inputForm.case !== undefined)
      this.#problem(path, 'the input stands in "input" of the node, not of what it runs');
    if (run.idempotencyKey !== '') this.#problem(`${path}.idempotency_key`, 'the key of a node is made by the run');
  }

  #map(map: WorkflowMap, path: string, scope: Scope, depth: number): void {
    this.#expression(map.items, `${path}.items`, scope);
    if (map.body.case === 'run') this.#run(map.body.value, `${path}.run`);
    if (map.body.case !== 'graph') return;
    if (depth >= MAX_DEPTH) this.#problem(path, `maps are more than ${MAX_DEPTH} deep in one another`);
    else this.graph(map.body.value, `${path}.graph.`, withNames(scope, 'item', 'index'), depth + 1);
  }

  #expression(text: string, path: string, scope: Scope): void {
    this.#guarded(path, () => this.#names([compileExpression(text)], path, scope));
  }

  #template(value: Value, path: string, scope: Scope, depth: number): void {
    const json = this.#jsonOf(value, path);
    if (json === undefined || !this.document(json, path, depth)) return;
    this.#guarded(path, () => this.#names(compileTemplate(json).expressions, path, scope));
  }

  /** Numbers that JSON does not have are refused by the conversion. */
  #jsonOf(value: Value, path: string): Json | undefined {
    try {
      return toJson(ValueSchema, value) as Json;
    } catch (error) {
      this.#problem(path, messageOf(error));
      return undefined;
    }
  }

  #guarded(path: string, check: () => void): void {
    try {
      check();
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error;
      this.#problem(path, error.message);
    }
  }

  #names(expressions: readonly Expression[], path: string, scope: Scope): void {
    for (const { text, names } of expressions) {
      for (const root of names.roots) {
        if (scope.roots.has(root)) continue;
        this.#problem(path, `"${text}" names ${root}, which is none of ${[...scope.roots].join(', ')}`);
      }
      for (const id of names.nodes) {
        if (!scope.known.has(id)) this.#problem(path, `"${text}" names the node "${id}", which there is not`);
        else if (!scope.before(id))
          this.#problem(path, `"${text}" names the node "${id}", which need not have ended by then`);
      }
    }
  }

  #problem(path: string, message: string): void {
    this.problems.push({ path, message });
  }

  #warn(path: string, message: string): void {
    this.warnings.push({ path, message });
  }
}

function withNames(scope: Scope, ...names: string[]): Scope {
  return { ...scope, roots: new Set([...scope.roots, ...names]) };
}
