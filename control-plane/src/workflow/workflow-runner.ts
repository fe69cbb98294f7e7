import { HarrierError, type Logger } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { DatabaseClock } from '../db/database-clock.ts';
import type { GroupCommit } from '../db/group-commit.ts';
import { OutageLog } from '../db/outage-log.ts';
import {
  type ClaimedRun,
  claimWorkflowRun,
  lookForWorkflowRuns,
  parkWorkflowRun,
} from '../db/queries/claim-workflow-runs.ts';
import { listWords, type WordRow } from '../db/queries/workflow-inbox.ts';
import {
  listNodesOfRuns,
  readWorkflowRuns,
  type WorkflowNodeRow,
  type WorkflowRunRow,
} from '../db/queries/workflow-runs.ts';
import type { NewStep } from '../db/queries/workflow-steps.ts';
import { refusedForGood } from '../db/refused-for-good.ts';
import type { Sql } from '../db/sql.ts';
import type { EndedInstance } from './draft.ts';
import type { CheckInput } from './evaluate.ts';
import { EvaluationGate } from './evaluation-gate.ts';
import type { Json } from './expression.ts';
import { pinnedGraph, type WorkflowsOf } from './pinned-graph.ts';
import { restoreRun } from './restore.ts';
import { type Executions, RunActor, type Stepped } from './run-actor.ts';
import type { RunEvent } from './run-event.ts';
import { newRun, ROOT, type Run, type Stored } from './run-state.ts';
import { type ReadOutput, RunValues } from './run-values.ts';
import { decodeInstance, encodeStep, storableText } from './stored-step.ts';

/**
 * How often runs are looked for at least. Each look tells the next time of a run, and runs are asleep for longer than this,
 * so that every replica knows of a time before it comes; this is for messages that were lost.
 */
const LOOK_MS = 5_000;
/**
 * When something of a run went wrong, how long until it is tried again. No longer while the database is away: runs wait for their
 * times and for each other meanwhile, and one look serves all of them.
 */
const AGAIN_MS = 1_000;
/** Runs of each kind that are taken at once; the next ones when these are in memory. */
const CLAIM_LIMIT = 200;
/** A run that only waits for longer leaves the memory. */
const PARK_AFTER_MS = 10_000;
/** It comes back so long before its time, so that it is not late. */
const WAKE_EARLY_MS = 2_000;
const DEFAULT_MAX_PARALLEL = 100;

export interface WorkflowRunnerOptions {
  sql: Sql;
  replicaId: string;
  /** Steps of all runs. */
  steps: GroupCommit<NewStep, boolean>;
  executions: Executions;
  readOutput: (tenantId: string, executionId: string) => ReturnType<ReadOutput>;
  workflowsOf: WorkflowsOf;
  checkInput: CheckInput;
  /** Repeats it while the database is away. */
  whileAway: <Result>(work: () => Promise<Result>, signal: AbortSignal) => Promise<Result>;
  /** A run has changed. */
  onChanged: (runId: string) => void;
  /** A node, an item or a run is over, and stored so. */
  onEnded: (instance: EndedInstance) => void;
  logger: Logger;
}

/** A run as it is stored. */
interface StoredRun {
  row: WorkflowRunRow;
  nodes: WorkflowNodeRow[];
  words: WordRow[];
}

/** Advances the runs of this replica; takes over those of replicas that are gone. */
export class WorkflowRunner {
  readonly #options: WorkflowRunnerOptions;
  readonly #actors = new Map<string, Promise<RunActor | undefined>>();
  /** Runs of which the database will never take the next step, and why: they end, but those of which it refuses that too. */
  readonly #refused = new Map<string, string>();
  readonly #stuck = new Set<string>();
  readonly #stopping = new AbortController();
  readonly #gate = new EvaluationGate();
  readonly #clock = new DatabaseClock();
  readonly #outage: OutageLog;
  #looking: Promise<void> | undefined;
  /** Something has happened since the look that goes on began. */
  #again = false;
  #timer: NodeJS.Timeout | undefined;
  #lookMs = Number.POSITIVE_INFINITY;

  constructor(options: WorkflowRunnerOptions) {
    this.#options = options;
    this.#outage = new OutageLog(options.logger, 'workflows go on again');
  }

  /** Runs that this replica has in memory. */
  get active(): number {
    return this.#actors.size;
  }

  start(): void {
    this.look();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the control plane stops'));
    clearTimeout(this.#timer);
    await this.#looking;
    for (const [id, starting] of this.#actors) {
      const actor = await starting.catch(() => undefined);
      await actor?.stop();
      if (actor !== undefined) await this.#park(id, actor, new Date()).catch(() => undefined);
    }
  }

  /** There may be runs to be taken: a replica is gone, or something was said. */
  look(): void {
    if (this.#stopping.signal.aborted) return;
    this.#again = true;
    clearTimeout(this.#timer);
    this.#lookMs = Number.POSITIVE_INFINITY;
    this.#looking ??= this.#lookAll().finally(() => {
      this.#looking = undefined;
    });
  }

  /** This replica advances the run from now on: it has just been accepted or claimed. */
  take(run: ClaimedRun): void {
    void this.#take([run]);
  }

  /**
   * There is a word for a run.
   * @returns the replica that has the run, if it is another one, which is to be told; undefined: this one has it now
   */
  async wake(tenantId: string, id: string): Promise<string | undefined> {
    const { sql, replicaId } = this.#options;
    const owner = await claimWorkflowRun(sql, { tenantId, id, replicaId });
    if (owner === undefined) return undefined;
    if (owner !== replicaId) return owner;
    this.take({ id, tenant_id: tenantId });
    await this.hear(id);
    return undefined;
  }

  /** Reads what was said to a run of this replica. */
  async hear(id: string): Promise<void> {
    const actor = await this.#actors.get(id);
    if (actor === undefined) return;
    const run = { id, tenant_id: actor.tenantId };
    for (const word of await listWords(this.#options.sql, [run])) post(actor, word);
  }

  #lookIn(ms: number): void {
    const atMs = performance.now() + ms;
    if (this.#stopping.signal.aborted || atMs >= this.#lookMs) return;
    clearTimeout(this.#timer);
    this.#lookMs = atMs;
    this.#timer = setTimeout(() => this.look(), ms);
    this.#timer.unref();
  }

  async #lookAll(): Promise<void> {
    let nextInMs = LOOK_MS;
    try {
      while (this.#again && !this.#stopping.signal.aborted) {
        this.#again = false;
        nextInMs = Math.min(LOOK_MS, (await this.#look()) ?? LOOK_MS);
      }
    } catch (error) {
      nextInMs = AGAIN_MS;
      this.#outage.failed('warn', 'workflows could not be looked for; trying again', error);
    }
    this.#outage.endRound();
    this.#lookIn(Math.max(1, nextInMs));
  }

  /** @returns milliseconds until the next time of a run that nobody has */
  async #look(): Promise<number | undefined> {
    const { sql, replicaId } = this.#options;
    const known = [...this.#actors.keys(), ...this.#stuck];
    const { claimed, own, heard, more, nextInMs, databaseMs } = await lookForWorkflowRuns(sql, {
      replicaId,
      known,
      limit: CLAIM_LIMIT,
    });
    this.#clock.set(databaseMs);
    if (more) this.#again = true;
    // Those that could not be begun, stored or left go on from their last step.
    await this.#take([...claimed, ...own]);
    for (const run of heard) {
      if (this.#actors.has(run.id)) await this.hear(run.id);
      else await this.#take([run]);
    }
    return nextInMs;
  }

  /** Resolves when they are in memory, or cannot be. */
  async #take(runs: readonly ClaimedRun[]): Promise<void> {
    const taken = runs.filter(({ id }) => !this.#actors.has(id));
    if (taken.length === 0 || this.#stopping.signal.aborted) return;
    const reading = this.#read(taken);
    const starting = taken.map(async ({ id }) => {
      const start = reading.then(async (stored) => await this.#start(id, stored.get(id)));
      this.#actors.set(id, start);
      try {
        await start;
      } catch (error) {
        this.#actors.delete(id);
        if (this.#stopping.signal.aborted) return;
        this.#outage.failed('error', 'a workflow cannot go on; trying again', error, { err: error, runId: id });
        this.#lookIn(AGAIN_MS);
      }
    });
    await Promise.all(starting);
  }

  async #read(runs: readonly ClaimedRun[]): Promise<Map<string, StoredRun>> {
    const { sql, whileAway } = this.#options;
    return await whileAway(async () => {
      if (!this.#clock.isKnown) await this.#clock.ask(sql);
      const rows = await readWorkflowRuns(sql, runs);
      const begun = rows.filter(({ root }) => root !== null);
      const [nodes, words] = await Promise.all([
        begun.length === 0 ? [] : listNodesOfRuns(sql, begun),
        listWords(sql, rows),
      ]);
      const nodesOf = Map.groupBy(nodes, ({ run_id }) => run_id);
      const wordsOf = Map.groupBy(words, ({ run_id }) => run_id);
      return new Map(
        rows.map((row) => [row.id, { row, nodes: nodesOf.get(row.id) ?? [], words: wordsOf.get(row.id) ?? [] }]),
      );
    }, this.#stopping.signal);
  }

  async #start(id: string, stored: StoredRun | undefined): Promise<RunActor | undefined> {
    const { replicaId, executions, checkInput, onChanged, onEnded } = this.#options;
    if (stored?.row.replica_id !== replicaId) {
      this.#actors.delete(id);
      return undefined;
    }
    const { row, words } = stored;
    const tenantId = row.tenant_id;
    const run = await this.#restore(stored);
    const counters = { revision: row.revision, logSequence: Number(row.log_sequence), stored: new WeakSet<Stored>() };
    const about: Json = {
      id,
      workflow: row.workflow,
      version: row.version,
      create_time: row.create_time.toISOString(),
    };
    const read: ReadOutput = (executionId) => this.#options.readOutput(tenantId, executionId);
    const actor: RunActor = new RunActor({
      run,
      tenantId,
      values: new RunValues(run, {
        input: JSON.parse(row.input_json) as Json,
        about,
        read,
        evaluate: (work) => this.#gate.run(tenantId, work),
      }),
      labels: { ...row.labels, 'workflow-run': id },
      executions,
      checkInput,
      nowMs: () => this.#clock.nowMs,
      store: async (step: Stepped, stopped) => {
        const encoded = encodeStep(step, { tenantId, replicaId, counters });
        return await this.#stored(encoded, stopped);
      },
      onStored: (ended) => {
        for (const instance of ended) onEnded(instance);
        onChanged(id);
      },
      onIdle: (wakeMs) => {
        if (!actor.isOver && wakeMs !== undefined && wakeMs - this.#clock.nowMs < PARK_AFTER_MS) return;
        const wakeTime = wakeMs === undefined || actor.isOver ? undefined : new Date(wakeMs - WAKE_EARLY_MS);
        this.#leave(id, actor, wakeTime);
      },
      onLost: () => {
        this.#actors.delete(id);
        void actor.stop();
        if (this.#refused.has(id) && !this.#stuck.has(id)) this.take({ id, tenant_id: tenantId });
        else this.#lookIn(AGAIN_MS);
      },
      onFailed: (level, what, error, about) => {
        this.#outage.failed(level, what, error, { err: error, runId: id, ...about });
      },
    });
    // Together with its start: a run for which nothing is to be done leaves at once.
    actor.start(this.#endOf(id));
    for (const word of words) post(actor, word);
    return actor;
  }

  /** What ends a run whose next step cannot be stored. */
  #endOf(id: string): RunEvent | undefined {
    const reason = this.#refused.get(id);
    if (reason === undefined) return undefined;
    const message = storableText(`the next step cannot be stored: ${reason}`);
    return { type: 'cancel', state: 'FAILED', error: { code: Code.INTERNAL, message } };
  }

  /** However long the database is away. */
  async #stored(step: NewStep, stopped: AbortSignal): Promise<boolean> {
    const { steps, whileAway, logger } = this.#options;
    const { run_id: id } = step;
    while (true) {
      try {
        const stored = await whileAway(() => steps.add(step), stopped);
        this.#refused.delete(id);
        this.#stuck.delete(id);
        return stored;
      } catch (error) {
        const refused = refusedForGood(error);
        if (refused !== undefined) {
          if (this.#refused.has(id)) {
            this.#stuck.add(id);
            logger.error({ runId: id }, `a workflow can neither go on nor end: ${refused}`);
          }
          this.#refused.set(id, refused);
        }
        if (stopped.aborted || !(error instanceof HarrierError) || error.code !== 'unavailable') throw error;
      }
    }
  }

  /** Out of memory, until its time or somebody's word. */
  #leave(id: string, actor: RunActor, wakeTime: Date | undefined): void {
    this.#actors.delete(id);
    actor
      .stop()
      .then(async () => {
        if (await this.#park(id, actor, wakeTime)) this.look();
      })
      .catch((error: unknown) => {
        this.#outage.failed('warn', 'a workflow stays in memory', error, { runId: id });
        this.#lookIn(AGAIN_MS);
      });
  }

  async #park(id: string, actor: RunActor, wakeTime: Date | undefined): Promise<boolean> {
    const { sql, replicaId } = this.#options;
    return await parkWorkflowRun(sql, { tenantId: actor.tenantId, id, replicaId, wakeTime });
  }

  async #restore({ row, nodes }: StoredRun): Promise<Run> {
    const { workflow, graph } = await pinnedGraph(row, this.#options.workflowsOf);
    const { maxParallel, timeout } = workflow;
    const given = {
      id: row.id,
      graph,
      maxParallel: maxParallel || DEFAULT_MAX_PARALLEL,
      timeoutMs: timeout === undefined ? undefined : Number(timeout.seconds) * 1000 + timeout.nanos / 1e6,
    };
    if (row.root === null) return newRun(given);
    const root = { path: ROOT, instance: row.root, input_json: null, output_json: row.output_json, execution_id: null };
    return restoreRun({ ...given, nextTurn: row.next_turn }, [root, ...nodes].map(decodeInstance));
  }
}

function post(actor: RunActor, { id, event }: WordRow): void {
  actor.post(event as RunEvent, Number(id));
}
