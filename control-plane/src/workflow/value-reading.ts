import { type Bindings, type Expression, ExpressionError, type Json } from './expression.ts';
import type { Graph } from './graph.ts';
import { itemsFailed } from './map-items.ts';
import {
  childPath,
  graphWithin,
  type Instance,
  isFinal,
  itemCount,
  itemPath,
  nodeOf,
  ownerOf,
  ROOT,
  type Run,
  type Stored,
} from './run-state.ts';

/** Of the outputs that one node's expressions read, as JSON text: as values they take some ten times that. */
export const MAX_READ_BYTES = 16 * 1024 * 1024;
/** Outputs that are read at once: so many may be in memory beyond the limit. */
const READS_AT_ONCE = 4;

/** Errors of the items of a map that expressions see, of which 10,000 may have failed; and how much of each. */
const MAX_ITEM_ERRORS = 100;
const MAX_ITEM_ERROR_CHARS = 1_000;

/** A value that is parsed when it is looked at: until then its text is all there is of it. */
export type Lazy<Value = Json> = () => Value;

/** Where values come from. */
export interface ValueSource {
  readonly run: Run;
  readonly input: Json;
  /** What expressions see as `run`. */
  readonly about: Json;
  /** The output of an execution. @throws ExpressionError when it is not kept any more */
  textOf(executionId: string): Promise<string>;
  /** What the run keeps itself. */
  parsed(stored: { json: string }): Json;
}

/** Gathers what one node's expressions see. Only what they refer to is read, and no more than fits. */
export class ValueReading {
  readonly #source: ValueSource;
  readonly #run: Run;
  /** Outputs that were read, by path: expressions may name one several times. */
  readonly #read = new Map<string, Lazy>();
  #bytes = 0;

  constructor(source: ValueSource) {
    this.#source = source;
    this.#run = source.run;
  }

  /** What expressions see at a place. @param owner path of what they are within. @param own the instance whose output is `output` */
  async bindings(owner: string, expressions: readonly Expression[], own?: Instance): Promise<Lazy<Bindings>> {
    const bindings: [name: string, value: Lazy][] = [];
    const roots = new Set(expressions.flatMap(({ names }) => [...names.roots]));
    if (roots.has('input')) bindings.push(['input', this.inputOf(owner)]);
    if (roots.has('variables')) bindings.push(['variables', () => this.variablesOf(owner)]);
    if (roots.has('run')) bindings.push(['run', () => this.#source.about]);
    if (roots.has('output') && own !== undefined) bindings.push(['output', await this.outputOf(own)]);
    if (roots.has('nodes')) bindings.push(['nodes', await this.#nodes(owner, expressions)]);
    if (roots.has('item') || roots.has('index')) {
      const item = this.#enclosing(owner, ({ item: index }) => index !== undefined);
      const index = item?.item;
      if (item !== undefined && index !== undefined) bindings.push(['item', this.itemOf(item)], ['index', () => index]);
    }
    return () => Object.fromEntries(bindings.map(([name, value]) => [name, value()]));
  }

  /** The input of what an instance is: the run, a workflow within it, or an item of a map. */
  inputOf(path: string): Lazy<Json> {
    const owner = this.#enclosing(path, (instance) => instance.item !== undefined || this.#isWorkflow(instance));
    if (owner === undefined || owner.path === ROOT) return () => this.#source.input;
    if (owner.item === undefined) return this.#kept(owner.input, {});
    const item = this.itemOf(owner);
    return () => objectOf(item(), 'item');
  }

  variablesOf(path: string): Record<string, Json> {
    const owner = this.#enclosing(path, (instance) => this.#isWorkflow(instance));
    const graph = graphWithin(this.#run.graph, owner?.path ?? ROOT);
    const first = graph !== undefined && 'variables' in graph.definition ? graph.definition.variables : undefined;
    return {
      ...(first as Record<string, Json> | undefined),
      ...(owner?.variables as Record<string, Json> | undefined),
    };
  }

  itemOf(instance: Instance): Lazy {
    const { item } = instance;
    const list = this.#kept(this.#run.instances.get(ownerOf(instance))?.input, []);
    return () => {
      const values = list();
      return Array.isArray(values) ? (values[item ?? 0] ?? null) : null;
    };
  }

  /** The output of an instance; of a map those of its items, in order. */
  async outputOf(instance: Instance | undefined): Promise<Lazy> {
    if (instance === undefined || !isFinal(instance.state)) return () => null;
    const node = nodeOf(this.#run.graph, instance.path);
    if (node?.kind !== 'map' || instance.item !== undefined) return await this.#output(instance);
    if (instance.state !== 'SUCCEEDED') return () => null;
    const outputs: Lazy[] = [];
    const count = itemCount(instance);
    let next = 0;
    const reader = async (): Promise<void> => {
      while (next < count) {
        const index = next++;
        outputs[index] = await this.outputOf(this.#run.instances.get(itemPath(instance.path, index))).catch((error) => {
          next = count;
          throw error;
        });
      }
    };
    await Promise.all(Array.from({ length: Math.min(READS_AT_ONCE, count) }, reader));
    return () => outputs.map((output) => output());
  }

  /** What nodes get that say nothing of their input, and what a graph makes that says nothing of its output. */
  async overlaid(owner: string, ids: readonly string[], under: Record<string, Json>): Promise<Lazy> {
    const outputs: [id: string, output: Lazy][] = [];
    for (const id of ids) outputs.push([id, await this.outputOf(this.#run.instances.get(childPath(owner, id)))]);
    return () => {
      let over = under;
      for (const [id, output] of outputs) {
        const value = output();
        if (value !== null) over = { ...over, ...objectOf(value, id) };
      }
      return over;
    };
  }

  async #nodes(owner: string, expressions: readonly Expression[]): Promise<Lazy> {
    const seen = new Map<string, Lazy>();
    const any = expressions.some(({ names }) => names.anyNode);
    const named = new Set(expressions.flatMap(({ names }) => [...names.nodes]));
    for (const [path, graph] of this.#scopes(owner)) {
      for (const id of any ? graph.nodes.keys() : named) {
        const instance = this.#run.instances.get(childPath(path, id));
        if (seen.has(id) || !graph.nodes.has(id) || instance === undefined) continue;
        const output = await this.outputOf(instance);
        seen.set(id, () => ({ state: instance.state, error: this.#errorOf(instance), output: output() }));
      }
    }
    return () => Object.fromEntries([...seen].map(([id, node]) => [id, node()]));
  }

  /** Why a node did not succeed; of a map that has collected failures those of its items, by index. */
  #errorOf(instance: Instance): Json {
    if (instance.error !== undefined) return { message: instance.error.message };
    const message = itemsFailed(instance);
    if (message === undefined || instance.state !== 'SUCCEEDED') return null;
    const items: [index: string, message: string][] = [];
    for (let i = 0; i < itemCount(instance) && items.length < MAX_ITEM_ERRORS; i++) {
      const item = this.#run.instances.get(itemPath(instance.path, i));
      if (item === undefined || item.state === 'SUCCEEDED') continue;
      items.push([String(i), (item.error?.message ?? item.state).slice(0, MAX_ITEM_ERROR_CHARS).toWellFormed()]);
    }
    return { message, items: Object.fromEntries(items) };
  }

  /** Graphs whose nodes can be seen: those around it, up to the workflow. */
  *#scopes(from: string): Iterable<[string, Graph]> {
    let path: string | undefined = from;
    while (path !== undefined) {
      const graph = graphWithin(this.#run.graph, path);
      const instance = this.#run.instances.get(path);
      if (graph !== undefined && instance?.phase !== undefined) yield [path, graph];
      if (path === ROOT || (instance !== undefined && this.#isWorkflow(instance))) return;
      path = instance?.parent;
    }
  }

  /** The nearest of an instance and those around it that is so; within a workflow not beyond it. */
  #enclosing(from: string, isIt: (instance: Instance) => boolean): Instance | undefined {
    let at = this.#run.instances.get(from);
    while (at !== undefined && !isIt(at)) {
      if (at.path === ROOT || this.#isWorkflow(at)) return undefined;
      at = this.#run.instances.get(ownerOf(at));
    }
    return at;
  }

  #isWorkflow({ path, item }: Instance): boolean {
    return path === ROOT || (item === undefined && nodeOf(this.#run.graph, path)?.kind === 'workflow');
  }

  #kept(stored: Stored | undefined, otherwise: Json): Lazy {
    return stored !== undefined && 'json' in stored ? () => this.#source.parsed(stored) : () => otherwise;
  }

  async #output({ path, output }: Instance): Promise<Lazy> {
    if (output === undefined) return () => null;
    let value = this.#read.get(path);
    if (value === undefined) {
      const text = 'json' in output ? output.json : await this.#source.textOf(output.executionId);
      this.#count(path, Buffer.byteLength(text));
      value = 'json' in output ? () => this.#source.parsed(output) : () => JSON.parse(text) as Json;
      this.#read.set(path, value);
    }
    return value;
  }

  #count(path: string, bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes <= MAX_READ_BYTES) return;
    throw new ExpressionError(
      `the outputs that it reads take more than ${MAX_READ_BYTES} bytes together, with ${bytes} of "${path}"; ` +
        'name fewer, or let nodes put large values elsewhere and hand on where they are',
    );
  }
}

/** An object as it is, anything else under a name. */
export function objectOf(value: Json, name: string): Record<string, Json> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : { [name]: value };
}
