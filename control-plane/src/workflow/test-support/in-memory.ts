import { create, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { HarrierError } from '@harrier/shared';
import { ExecutionError_Code as Code, ExecutionErrorSchema } from '@harrier/shared/gen/error';
import { type Execution, ExecutionSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import type { NewStep } from '../../db/queries/workflow-steps.ts';
import type { ExecutionRequest } from '../../service/execution-request.ts';
import { violationsOf } from '../../service/json-schema.ts';
import { workflowExecutions } from '../../service/workflow-executions.ts';
import type { EndedInstance } from '../draft.ts';
import { EvaluationGate } from '../evaluation-gate.ts';
import type { Json } from '../expression.ts';
import type { Graph } from '../graph.ts';
import { restoreRun } from '../restore.ts';
import { RunActor } from '../run-actor.ts';
import type { RunEvent } from '../run-event.ts';
import { type Instance, isFinal, newRun, ROOT, type Run, type Stored } from '../run-state.ts';
import { RunValues } from '../run-values.ts';
import { decodeInstance, encodeStep } from '../stored-step.ts';
import { graphOf } from './simulate.ts';

type Row = Parameters<typeof decodeInstance>[0];

export interface InMemoryOptions {
  /** Workflows that nodes run. */
  others?: JsonValue[];
  input?: Json;
  /** What the code of a node does with its input. What it throws is the error of the execution. */
  work?: (input: Json, path: string, request: ExecutionRequest) => Json;
  /** What the end of an execution waits for. */
  running?: (path: string) => Promise<unknown>;
  /** It is asked to stop. */
  cancels?: (path: string) => void;
  /** Whether an execution is refused for good, as when its module was deleted. @param accepted whether it was accepted before */
  refuses?: (path: string, accepted: boolean) => boolean;
  /** The process dies at a step, before it is stored or right after that. @param step counted from 1 */
  dies?: (step: number) => 'before' | 'after' | undefined;
}

/** A run with everything but the database and the agents, whose parts are maps here. */
export class InMemoryRun {
  /** What is stored of it. */
  readonly rows = new Map<string, Row>();
  readonly log: string[] = [];
  /** What was told to be over. */
  readonly ended: EndedInstance[] = [];
  /** Inputs of executions by path and try. */
  readonly inputs = new Map<string, Json>();
  /** How often the output of an execution was read. */
  reads = 0;
  readonly #graph: Graph;
  readonly #definition: JsonValue;
  readonly #options: InMemoryOptions;
  /** By their keys. */
  readonly #executions = new Map<string, Execution>();
  readonly #ended = Promise.withResolvers<void>();
  readonly #gate = new EvaluationGate();
  #nextTurn = 1;
  #revision = 0;
  #steps = 0;
  #actor: RunActor;

  constructor(definition: JsonValue, options: InMemoryOptions = {}) {
    this.#definition = { name: 'w', version: '1.0.0', ...(definition as object) };
    this.#options = options;
    this.#graph = graphOf(this.#definition, options.others);
    this.#actor = this.#begin();
  }

  get run(): Run {
    return this.#actor.run;
  }

  post(event: RunEvent): void {
    this.#actor.post(event);
  }

  instance(path: string): Instance {
    const instance = this.run.instances.get(path);
    if (instance === undefined) throw new Error(`there is no ${path}`);
    return instance;
  }

  /** The value that the run keeps of an instance, or that its execution had. */
  outputOf(path: string): Json {
    const { output } = this.instance(path);
    if (output === undefined) return null;
    return JSON.parse('json' in output ? output.json : (this.#text(output.executionId) ?? 'null')) as Json;
  }

  /** Retention has deleted them. */
  forgetExecutions(): void {
    this.#executions.clear();
  }

  /** The process dies while nothing is being stored. */
  restart(): void {
    void this.#actor.stop();
    this.#actor = this.#begin();
    this.#look();
  }

  /** Waits for the end of the run. */
  async end(): Promise<this> {
    await this.#ended.promise;
    await this.#actor.stop();
    return this;
  }

  #begin(): RunActor {
    const { maxParallel, timeout } = fromJson(WorkflowSchema, this.#definition);
    const given = {
      id: 'run',
      graph: this.#graph,
      maxParallel: maxParallel || 100,
      timeoutMs: timeout === undefined ? undefined : Number(timeout.seconds) * 1000,
    };
    const stored = [...this.rows.values()].map(decodeInstance);
    const run = stored.length === 0 ? newRun(given) : restoreRun({ ...given, nextTurn: this.#nextTurn }, stored);
    const counters = { revision: this.#revision, logSequence: this.log.length, stored: new WeakSet<Stored>() };
    const values = new RunValues(run, {
      input: this.#options.input ?? {},
      about: { id: 'run', workflow: 'w' },
      read: async (executionId) => {
        this.reads++;
        return this.#text(executionId);
      },
      evaluate: (prepare) => this.#gate.run('tenant', prepare),
    });
    const actor: RunActor = new RunActor({
      ...{ run, tenantId: 'tenant', values, labels: { run: 'label' } },
      nowMs: Date.now,
      executions: workflowExecutions(
        {
          accept: async (_tenant, request) => ({ id: this.#accept(request), tracked: undefined }),
          finished: async (_tenant, id) => await this.#finished(id),
          cancel: async (_tenant, id) => {
            this.#options.cancels?.(pathIn(id));
            return await this.#finished(id);
          },
        },
        async (_tenant, key) => this.#executions.get(key)?.id,
      ),
      checkInput: ({ inputSchema }, input, bytes) =>
        inputSchema && violationsOf(inputSchema, JSON.stringify(inputSchema), input, bytes),
      store: async (step) => {
        const dies = this.#options.dies?.(++this.#steps);
        if (dies !== 'before') this.#store(encodeStep(step, { tenantId: 'tenant', replicaId: 'replica', counters }));
        return dies === undefined;
      },
      onStored: (ended) => {
        this.ended.push(...ended);
        this.#look();
      },
      onIdle: () => undefined,
      onLost: () => this.restart(),
      onFailed: () => undefined,
    });
    actor.start();
    return actor;
  }

  #look(): void {
    const root = this.rows.get(ROOT);
    if (root === undefined) return;
    const { state, phase } = decodeInstance(root);
    if (isFinal(state) && phase === 'none') this.#ended.resolve();
  }

  /** As the service does: what cannot be run is refused before the key is looked at, and the same key is the same execution. */
  #accept(request: ExecutionRequest): string {
    const { idempotencyKey: key, inputForm } = request;
    const path = pathIn(key);
    const known = this.#executions.get(key);
    if (this.#options.refuses?.(path, known !== undefined)) throw new HarrierError('not_found', 'its module is gone');
    if (known !== undefined) return known.id;
    const input = JSON.parse(inputForm.case === 'inputJson' ? inputForm.value : 'null') as Json;
    this.inputs.set(path, input);
    const execution = create(ExecutionSchema, { id: `execution of ${key}`, state: State.SUCCEEDED });
    try {
      execution.outputJson = JSON.stringify(this.#options.work?.(input, path, request) ?? {});
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      execution.state = State.FAILED;
      execution.error = create(ExecutionErrorSchema, { code: Code.HANDLER_ERROR, message });
    }
    this.#executions.set(key, execution);
    return execution.id;
  }

  async #finished(id: string): Promise<Execution> {
    const execution = [...this.#executions.values()].find((known) => known.id === id);
    if (execution === undefined) throw new Error(`there is no ${id}`);
    await this.#options.running?.(pathIn(id));
    return execution;
  }

  #text(executionId: string): string | undefined {
    return [...this.#executions.values()].find(({ id }) => id === executionId)?.outputJson;
  }

  /** As the statement does. */
  #store(step: NewStep): void {
    // What is stored is text: nothing may be shared with what is in memory.
    const { root, nodes, log, next_turn, revision, output_json } = JSON.parse(JSON.stringify(step)) as NewStep;
    this.#nextTurn = next_turn;
    this.#revision = revision;
    for (const { path, message } of log) this.log.push(`${path}: ${message}`);
    for (const node of [{ path: ROOT, instance: root, input_json: null, output_json, execution_id: null }, ...nodes]) {
      const before = this.rows.get(node.path);
      this.rows.set(node.path, {
        ...node,
        input_json: node.input_json ?? before?.input_json ?? null,
        output_json: node.output_json ?? before?.output_json ?? null,
      });
    }
  }
}

/** @param key of an execution, or its id */
function pathIn(key: string): string {
  return key.replace(/^(execution of )?workflow\/run\//, '').replace(/#\d+$/, '');
}
