import { createHash } from 'node:crypto';
import { clone, fromBinary, type JsonObject, toBinary } from '@bufbuild/protobuf';
import { timestampDate, timestampFromDate } from '@bufbuild/protobuf/wkt';
import { HarrierError, parseLabelSelector } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import {
  type ListWorkflowRunsRequest,
  type ListWorkflowsRequest,
  type RunWorkflowRequest,
  WorkflowRun_State as State,
  type Workflow,
  type WorkflowRun,
  WorkflowSchema,
} from '@harrier/shared/gen/workflow';
import { findExecutionsByKeys } from '../db/queries/read-executions.ts';
import { deleteVersions } from '../db/queries/versions.ts';
import { awaitsSignal, insertSignal, insertWord } from '../db/queries/workflow-inbox.ts';
import {
  insertWorkflowRun,
  listWorkflowNodes,
  listWorkflowRuns,
  readWorkflowRun,
  type WorkflowRunRow,
} from '../db/queries/workflow-runs.ts';
import {
  insertWorkflow,
  listWorkflows,
  readWorkflow,
  readWorkflows,
  readWorkflowsById,
  type WorkflowRow,
} from '../db/queries/workflows.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { checkWorkflow } from '../workflow/check-workflow.ts';
import type { Graph } from '../workflow/graph.ts';
import { pinKey, pinnedGraph } from '../workflow/pinned-graph.ts';
import type { RunEvent } from '../workflow/run-event.ts';
import { nodeOf } from '../workflow/run-state.ts';
import { decodeInstance } from '../workflow/stored-step.ts';
import type { WorkflowRunner } from '../workflow/workflow-runner.ts';
import { checkStructure, parseJsonObject } from './json-document.ts';
import { checkSchema, violationsOf } from './json-schema.ts';
import { decodePageToken, encodePageToken, pageSizeOf, TEXT_SHAPE, UUID_SHAPE } from './page-token.ts';
import { readRunOutputs } from './run-outputs.ts';
import { checkLookup, checkVersion, latestOf, optionalText } from './semantic-versions.ts';
import { refuseNul, STORED, storable } from './storable.ts';
import { criticalPath, nodeMessage, runMessage, runningKey } from './workflow-run-message.ts';

/** Workflows within workflows. */
const MAX_DEPTH = 8;
/** Nodes of a run, those of workflows within it included. */
const MAX_RUN_NODES = 20_000;
/** Problems that one answer names. */
const MAX_PROBLEMS = 20;
const CACHE_ENTRIES = 1_000;

export interface WorkflowServiceOptions {
  sql: Sql;
  replicaId: string;
  runner: WorkflowRunner;
  /** A word for a run is in its table: the replica that advances it is to look. */
  tell: (replicaId: string, runId: string) => void;
}

/** The registry of workflows, and their runs. */
export class WorkflowService {
  readonly #options: WorkflowServiceOptions;
  /** By id: what never changes. */
  readonly #known = new Map<string, Workflow>();

  constructor(options: WorkflowServiceOptions) {
    this.#options = options;
  }

  /** @throws HarrierError invalid_argument with the path of every problem, already_exists */
  async create(tenantId: string, given: Workflow): Promise<{ workflow: Workflow; warnings: string[] }> {
    const workflow = clone(WorkflowSchema, given);
    delete workflow.createTime;
    workflow.digest = '';
    checkVersion(workflow.version, 'workflow.version');
    const { problems, warnings } = checkWorkflow(workflow, (schema, path) => checkSchema(schema as JsonObject, path));
    const [first] = problems;
    if (first !== undefined) {
      const told = problems.slice(0, MAX_PROBLEMS).map(({ path, message }) => `workflow.${path}: ${message}`);
      if (problems.length > MAX_PROBLEMS) told.push(`and ${problems.length - MAX_PROBLEMS} more`);
      throw new HarrierError('invalid_argument', told.join('; '), { field: `workflow.${first.path}` });
    }
    await this.#pin(tenantId, workflow);
    const digest = digestOf(workflow);
    const row = await insertWorkflow(
      this.#options.sql,
      {
        id: uuidv7(),
        tenantId,
        name: workflow.name,
        version: workflow.version,
        tags: workflow.tags,
        digest,
        definition: toBinary(WorkflowSchema, workflow),
      },
      latestOf,
    );
    if (row.digest !== digest) {
      throw new HarrierError(
        'already_exists',
        `workflow ${workflow.name} ${workflow.version} exists with other content; versions never change, register a new one`,
        { field: 'workflow.version' },
      );
    }
    return { workflow: shown(row), warnings: warnings.map(({ path, message }) => `${path}: ${message}`) };
  }

  /** @throws HarrierError not_found, invalid_argument */
  async get(tenantId: string, name: string, version: string): Promise<Workflow> {
    return shown(await this.#find(tenantId, name, version));
  }

  async list(
    tenantId: string,
    request: ListWorkflowsRequest,
  ): Promise<{ workflows: Workflow[]; nextPageToken: string }> {
    const limit = pageSizeOf(request.pageSize);
    const rows = await listWorkflows(this.#options.sql, {
      tenantId,
      limit: limit + 1,
      after: decodePageToken(request.pageToken, [TEXT_SHAPE])?.[0],
      tag: optionalText(request.tag, 'tag'),
      namePrefix: optionalText(request.namePrefix, 'name_prefix'),
    });
    const page = rows.slice(0, limit);
    const last = rows.length > limit ? page.at(-1) : undefined;
    return {
      workflows: page.map((row) => ({ ...shown(row), nodes: [], edges: [] })),
      nextPageToken: last === undefined ? '' : encodePageToken(last.name),
    };
  }

  /** @returns how many versions. @throws HarrierError not_found */
  async delete(tenantId: string, name: string, version: string): Promise<number> {
    checkLookup(name, version);
    const deleted = await deleteVersions(
      this.#options.sql,
      'workflows',
      { tenantId, name, version: version === '' ? undefined : version },
      latestOf,
    );
    if (deleted === 0) throw notFound(name, version);
    return deleted;
  }

  /** @throws HarrierError invalid_argument, not_found; nothing was written then */
  async run(tenantId: string, request: RunWorkflowRequest): Promise<WorkflowRun> {
    const { sql, replicaId, runner } = this.#options;
    const { row, inputJson, pinned } = await this.#runnable(tenantId, request);
    const { row: run, made } = await insertWorkflowRun(sql, {
      id: uuidv7(),
      tenantId,
      workflowId: row.id,
      workflow: row.name,
      version: row.version,
      pinned,
      state: State.PENDING,
      inputJson,
      labels: Object.keys(request.labels).length === 0 ? undefined : request.labels,
      idempotencyKey: request.idempotencyKey === '' ? undefined : request.idempotencyKey,
      replicaId,
    });
    // Made by this call, or by one whose answer was lost.
    if (made || run.replica_id === replicaId) runner.take(run);
    return runMessage(run);
  }

  /** Refuses what `run` would, and runs nothing. @throws HarrierError invalid_argument, not_found */
  async checkRun(tenantId: string, request: RunWorkflowRequest): Promise<void> {
    await this.#runnable(tenantId, request);
  }

  /**
   * @param outputs of nodes with these paths are told, none: of all; undefined: they are not
   * @throws HarrierError not_found
   */
  async getRun(tenantId: string, id: string, outputs?: readonly string[]): Promise<WorkflowRun> {
    const { sql } = this.#options;
    const row = await this.#runRow(tenantId, id);
    const message = runMessage(row);
    const graph = await this.graphOf(row);
    // What was taken back to be tried again, and was not, is as if it had never been reached.
    const reached = (await listWorkflowNodes(sql, tenantId, id))
      .map((node) => ({ node, instance: decodeInstance(node) }))
      .filter(({ instance }) => instance.state !== 'PENDING');
    const rows = reached
      .toSorted((a, b) => (a.instance.startMs ?? 0) - (b.instance.startMs ?? 0))
      .map(({ node }) => node);
    const keys = rows.flatMap((node) => runningKey(id, node) ?? []);
    const running = await findExecutionsByKeys(sql, tenantId, keys);
    const told =
      outputs === undefined ? undefined : await readRunOutputs(sql, { tenantId, runId: id, graph }, rows, outputs);
    for (const node of rows) {
      const shown = nodeMessage(node, graph, running.get(runningKey(id, node) ?? ''));
      message.nodes.push(Object.assign(shown, told?.get(node.path)));
    }
    if (row.end_time !== null) message.criticalPath = criticalPath(graph, rows);
    return message;
  }

  /** Newest first, without nodes, inputs, outputs and variables. @throws HarrierError invalid_argument */
  async listRuns(
    tenantId: string,
    request: ListWorkflowRunsRequest,
  ): Promise<{ runs: WorkflowRun[]; nextPageToken: string }> {
    const { state, createTimeFrom, createTimeTo } = request;
    const limit = pageSizeOf(request.pageSize);
    const rows = await listWorkflowRuns(this.#options.sql, {
      tenantId,
      limit: limit + 1,
      before: decodePageToken(request.pageToken, [UUID_SHAPE])?.[0],
      workflow: optionalText(request.workflow, 'workflow'),
      state: state === State.STATE_UNSPECIFIED ? undefined : state,
      labels: parseLabelSelector(request.labelSelector, 'label_selector'),
      createTimeFrom: createTimeFrom === undefined ? undefined : timestampDate(createTimeFrom),
      createTimeTo: createTimeTo === undefined ? undefined : timestampDate(createTimeTo),
    });
    const page = rows.slice(0, limit);
    const last = rows.length > limit ? page.at(-1) : undefined;
    return { runs: page.map(runMessage), nextPageToken: last === undefined ? '' : encodePageToken(last.id) };
  }

  /** @throws HarrierError not_found, failed_precondition when it has ended */
  async cancel(tenantId: string, id: string, reason: string): Promise<WorkflowRun> {
    const row = await this.#runRow(tenantId, id);
    if (row.end_time !== null) throw ended(row, 'cancelled');
    const message = storable(reason === '' ? 'cancelled by a caller' : reason);
    return await this.#say(row, { type: 'cancel', error: { code: Code.CANCELLED, message } });
  }

  /** @throws HarrierError not_found, invalid_argument, failed_precondition when the node does not wait for it */
  async signal(tenantId: string, id: string, path: string, payloadJson: string): Promise<WorkflowRun> {
    const row = await this.#runRow(tenantId, id);
    refuseNul('path', path);
    const payload = parseJsonObject(payloadJson === '' ? '{}' : payloadJson, 'payload_json');
    if (row.end_time !== null) throw ended(row, 'signalled');
    const waits = await awaitsSignal(this.#options.sql, tenantId, id, path);
    if (waits !== true) {
      const why = waits === undefined ? 'was not reached' : 'does not wait for a signal now';
      throw new HarrierError('failed_precondition', `the node "${path}" of run ${id} ${why}`, { field: 'path' });
    }
    const kind = nodeOf(await this.graphOf(row), path)?.definition.kind;
    const schema = kind?.case === 'signal' ? kind.value.schema : undefined;
    if (schema !== undefined) {
      const violations = violationsOf(schema, `${row.workflow_id} ${path}`, payload, Buffer.byteLength(payloadJson));
      if (violations !== undefined) {
        throw new HarrierError(
          'invalid_argument',
          `the payload does not satisfy the schema of "${path}": ${violations}`,
          { field: 'payload_json' },
        );
      }
    }
    const word = { tenantId, runId: id, path, payload: { json: JSON.stringify(payload) } };
    if (!(await insertSignal(this.#options.sql, word))) {
      const message = `the node "${path}" of run ${id} was signalled already, or does not wait any more`;
      throw new HarrierError('failed_precondition', message, { field: 'path' });
    }
    return await this.#told(row);
  }

  /** @throws HarrierError not_found, failed_precondition when it goes on or has succeeded */
  async retry(tenantId: string, id: string): Promise<WorkflowRun> {
    const row = await this.#runRow(tenantId, id);
    if (row.end_time === null || row.state === State.SUCCEEDED) {
      const why = row.end_time === null ? 'has not ended' : 'succeeded';
      throw new HarrierError('failed_precondition', `run ${id} ${why}; only one that failed can be started again`, {
        field: 'id',
      });
    }
    return await this.#say(row, { type: 'retry' });
  }

  /** The graph of a run, with the workflows within it as they were when it was accepted. */
  async graphOf(row: WorkflowRunRow): Promise<Graph> {
    return (await pinnedGraph(row, (tenantId, ids) => this.workflowsOf(tenantId, ids))).graph;
  }

  /** Versions that runs were accepted with, deleted since or not, by id. Those that are not known yet are read at once. */
  async workflowsOf(tenantId: string, ids: readonly string[]): Promise<ReadonlyMap<string, Workflow>> {
    const found = new Map<string, Workflow>();
    const unknown: string[] = [];
    for (const id of ids) {
      const known = this.#known.get(`${tenantId} ${id}`);
      if (known === undefined) unknown.push(id);
      else found.set(id, known);
    }
    if (unknown.length === 0) return found;
    for (const { id, definition, digest } of await readWorkflowsById(this.#options.sql, tenantId, unknown)) {
      const workflow = fromBinary(WorkflowSchema, definition, STORED);
      workflow.digest = digest;
      if (this.#known.size >= CACHE_ENTRIES) this.#known.clear();
      this.#known.set(`${tenantId} ${id}`, workflow);
      found.set(id, workflow);
    }
    const gone = unknown.find((id) => !found.has(id));
    if (gone !== undefined) throw new HarrierError('internal', `workflow ${gone} of a run is gone`);
    return found;
  }

  async runRow(tenantId: string, id: string): Promise<WorkflowRunRow> {
    return await this.#runRow(tenantId, id);
  }

  /** What a caller says is kept before anything is done about it. */
  async #say(row: WorkflowRunRow, event: RunEvent): Promise<WorkflowRun> {
    await insertWord(this.#options.sql, { tenantId: row.tenant_id, runId: row.id, event });
    return await this.#told(row);
  }

  /** There is a word for a run. @returns the run as it is then */
  async #told(row: WorkflowRunRow): Promise<WorkflowRun> {
    const { runner, tell } = this.#options;
    const elsewhere = await runner.wake(row.tenant_id, row.id);
    if (elsewhere !== undefined) tell(elsewhere, row.id);
    return runMessage(await this.#runRow(row.tenant_id, row.id));
  }

  async #runRow(tenantId: string, id: string): Promise<WorkflowRunRow> {
    const row = await readWorkflowRun(this.#options.sql, tenantId, id);
    if (row === undefined) throw new HarrierError('not_found', `there is no workflow run ${id}`, { field: 'id' });
    return row;
  }

  async #runnable(
    tenantId: string,
    request: RunWorkflowRequest,
  ): Promise<{ row: WorkflowRow; inputJson: string; pinned: Record<string, string> }> {
    refuseNul('idempotency_key', request.idempotencyKey);
    const row = await this.#find(tenantId, request.name, request.version);
    const workflow = fromBinary(WorkflowSchema, row.definition, STORED);
    const inputJson = checkedInput(request, workflow, row.digest);
    const pinned = await this.#pin(tenantId, workflow);
    return { row, inputJson, pinned };
  }

  async #find(tenantId: string, name: string, version: string): Promise<WorkflowRow> {
    checkLookup(name, version);
    const row = await readWorkflow(this.#options.sql, tenantId, name, version === '' ? undefined : version);
    if (row === undefined) throw notFound(name, version);
    return row;
  }

  /** The versions of all workflows within one, read level by level. @throws HarrierError invalid_argument */
  async #pin(tenantId: string, workflow: Workflow): Promise<Record<string, string>> {
    const pinned: Record<string, string> = {};
    const known = new Map<string, Workflow>();
    let nodes = 0;
    let level: Within[] = [{ workflow, names: [workflow.name] }];
    while (level.length > 0) {
      const referred: (Reference & { names: readonly string[] })[] = [];
      for (const { workflow: at, names } of level) {
        nodes += countNodes(at);
        if (nodes > MAX_RUN_NODES) {
          throw refusedAt('workflow.nodes', `with the workflows within it, it has more than ${MAX_RUN_NODES} nodes`);
        }
        for (const reference of workflowsWithin(at.nodes, 'workflow.nodes')) {
          const circle = [...names, reference.name];
          const { path } = reference;
          if (names.includes(reference.name))
            throw refusedAt(path, `${path}: workflows run each other in a circle: ${circle.join(' → ')}`);
          if (names.length >= MAX_DEPTH)
            throw refusedAt(path, `${path}: workflows are more than ${MAX_DEPTH} deep in one another`);
          referred.push({ ...reference, names: circle });
        }
      }
      const unread = new Map(referred.map((reference) => [pinKey(reference.name, reference.version), reference]));
      for (const key of known.keys()) unread.delete(key);
      for (const { asked, ...row } of await readWorkflows(this.#options.sql, tenantId, [...unread.values()])) {
        pinned[pinKey(row.name, asked)] = row.id;
        known.set(pinKey(row.name, asked), fromBinary(WorkflowSchema, row.definition, STORED));
      }
      level = referred.map(({ name, version, path, names }) => {
        const found = known.get(pinKey(name, version));
        if (found !== undefined) return { workflow: found, names };
        throw refusedAt(path, `${path}: there is no workflow "${name}"${version === '' ? '' : ` ${version}`}`);
      });
    }
    return pinned;
  }
}

/** A workflow as it is run within others, whose names lead to it. */
interface Within {
  workflow: Workflow;
  names: readonly string[];
}

/** A node that runs a workflow; without a version the latest. */
interface Reference {
  name: string;
  version: string;
  path: string;
}

function refusedAt(field: string, message: string): HarrierError {
  return new HarrierError('invalid_argument', message, { field });
}

function* workflowsWithin(nodes: Workflow['nodes'], path: string): Iterable<Reference> {
  for (const [i, { kind }] of nodes.entries()) {
    if (kind.case === 'workflow') {
      const { name, version } = kind.value;
      yield { name, version, path: `${path}[${i}].workflow` };
    }
    if (kind.case === 'map' && kind.value.body.case === 'graph') {
      yield* workflowsWithin(kind.value.body.value.nodes, `${path}[${i}].map.graph.nodes`);
    }
  }
}

function countNodes({ nodes }: Pick<Workflow, 'nodes'>): number {
  return nodes.reduce((sum, { kind }) => {
    return sum + 1 + (kind.case === 'map' && kind.value.body.case === 'graph' ? countNodes(kind.value.body.value) : 0);
  }, 0);
}

function checkedInput({ inputForm }: RunWorkflowRequest, workflow: Workflow, digest: string): string {
  const text =
    inputForm.case === 'inputJson'
      ? inputForm.value
      : inputForm.case === 'input'
        ? JSON.stringify(inputForm.value)
        : '{}';
  const field = inputForm.case === 'inputJson' ? 'input_json' : 'input';
  if (inputForm.case === 'input') checkStructure(inputForm.value, field);
  const value = parseJsonObject(text, field);
  if (workflow.inputSchema === undefined) return text;
  const violations = violationsOf(workflow.inputSchema, `${digest} input`, value, Buffer.byteLength(text));
  if (violations === undefined) return text;
  const message = `${field} does not satisfy the input schema of ${workflow.name} ${workflow.version}: ${violations}`;
  throw new HarrierError('invalid_argument', message, { field });
}

function shown(row: WorkflowRow): Workflow {
  const workflow = fromBinary(WorkflowSchema, row.definition, STORED);
  workflow.createTime = timestampFromDate(row.create_time);
  workflow.digest = row.digest;
  return workflow;
}

function digestOf(workflow: Workflow): string {
  const content = clone(WorkflowSchema, workflow);
  content.description = '';
  content.tags = [];
  return createHash('sha256').update(toBinary(WorkflowSchema, content)).digest('hex');
}

function ended({ id, state }: WorkflowRunRow, what: string): HarrierError {
  const name = Object.entries(State).find(([, value]) => value === state)?.[0] ?? '';
  return new HarrierError('failed_precondition', `run ${id} has ended (${name}) and cannot be ${what}`, {
    field: 'id',
  });
}

function notFound(name: string, version: string): HarrierError {
  return new HarrierError('not_found', `there is no workflow "${name}"${version === '' ? '' : ` ${version}`}`, {
    field: version === '' ? 'name' : 'version',
  });
}
