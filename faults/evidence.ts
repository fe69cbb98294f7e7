import type { ExecutionPlan } from './execution-plan.ts';
import type { SchedulePlan } from './schedule-plan.ts';
import type { WorkflowPlan } from './workflow-plan.ts';

/** A line that code wrote to its file of evidence, past everything of Harrier. */
export interface Mark {
  /** Number of the attempt; 0: the code is not told. */
  attempt: number;
  /** Undefined: the code is not told. */
  executionId: string | undefined;
  /** Of this start of the code; no other one has it. */
  nonce: string;
  /** `alive`: now and then between start and end; `daemon`: the process that it left behind lives. */
  event: 'start' | 'alive' | 'daemon' | 'raised' | 'end';
  /** CLOCK_MONOTONIC of the host, which every process of the host shares. */
  timeMs: number;
}

/** A write to the database that made an execution final, or changed one that was. */
export interface Ending {
  attempt: number;
  state: number;
}

export interface AttemptRecord {
  attempt: number;
  state: number;
  errorCode: number | null;
}

export interface StoredChunk {
  attempt: number;
  stream: 'stdout' | 'stderr';
  offset: number;
  data: Buffer;
}

/** What the database has under the key of an execution. */
export interface ExecutionRecord {
  id: string;
  state: number;
  final: boolean;
  attempt: number;
  errorCode: number | null;
  errorMessage: string | null;
  outputJson: string | null;
  /** Attempts that were followed by another one. */
  attempts: AttemptRecord[];
  endings: Ending[];
  chunks: StoredChunk[];
  /** Its log as `ReadLogs` answers it afterwards, attempt by attempt; undefined: nobody could read it. */
  read: StoredChunk[] | undefined;
}

/** An execution that was asked for by a node of a workflow. */
export interface NodeExecution extends ExecutionRecord {
  runId: string;
  /** Of the node, and the number of the try; as its idempotency key has them. */
  path: string;
  tries: number;
}

export interface LogLine {
  sequence: number;
  message: string;
}

/** What the database has of a run of a workflow. */
export interface RunRecord {
  id: string;
  state: number;
  final: boolean;
  errorMessage: string | null;
  outputJson: string | null;
  /** States of the writes that ended it, or changed it when it had ended. */
  endings: number[];
  log: LogLine[];
  executions: NodeExecution[];
}

/** What a caller of a workflow was told. */
export interface RunAnswer {
  /** Ids of runs that it was given for the one that it asked for. */
  ids: string[];
  /** The final state that it was told, when it waited for it. */
  state: number | undefined;
  outputJson: string | undefined;
  /** The run's log as it was followed, resumed after every break; undefined: not followed. */
  followed: LogLine[] | undefined;
  /** When it said what signals wait for, on the clock of the marks. */
  approvedAtMs: number[];
}

export interface RunEvidence {
  plan: WorkflowPlan;
  /** Undefined: the call was refused until the end of the round. */
  answer: RunAnswer | undefined;
  /** More than one: it was accepted more than once. */
  records: RunRecord[];
  /** What the code of each job wrote, by the job's key; also of those that were not to run. */
  marks: ReadonlyMap<string, Mark[]>;
}

/** What the database has of one time of a schedule. */
export interface FiringRecord {
  timeMs: number;
  dueMs: number;
  /** ScheduleFiring.State */
  state: number;
  /** It stands for all missed times from this one on. */
  sinceMs: number | null;
  /** Of what it started. */
  startedId: string | null;
  message: string | null;
  /** When the transaction began that decided about it: not after the decision. */
  createMs: number;
  /** The states that were written, in their order. */
  changes: FiringChange[];
}

/** A write of a firing's state, as a trigger saw it. */
export interface FiringChange {
  state: number;
  /** Not before the decision. */
  atMs: number;
  /** Firings of earlier times that were not over then. */
  openBefore: number;
}

/** What says of itself that a schedule has started it. */
export interface StartedRecord {
  id: string;
  /** Its idempotency key. */
  key: string;
  state: number;
  final: boolean;
  endMs: number | null;
  /** Undefined: it is a run of a workflow. */
  execution: ExecutionRecord | undefined;
}

export interface ScheduleRecord {
  id: string;
  /** The times after it are those of the schedule. */
  createMs: number;
  /** When it was changed last, which was when it was given its end: until then it had none. */
  updateMs: number;
  firings: FiringRecord[];
  started: StartedRecord[];
}

/** What was asked for, with what was chosen when it was. All by the database's clock, which is the host's. */
export interface ScheduleAnswer {
  startMs: number;
  /** Undefined: nobody answered that it ends. */
  untilMs: number | undefined;
}

export interface ScheduleEvidence {
  plan: SchedulePlan;
  /** Undefined: the call was refused until the end of the round. */
  answer: ScheduleAnswer | undefined;
  record: ScheduleRecord | undefined;
  /** What code wrote, by the time that it was told, in milliseconds since 1970. */
  marks: ReadonlyMap<number, Mark[]>;
}

/** What a caller was told. */
export interface Answer {
  /** Ids of executions that it was given for the one that it asked for. */
  ids: string[];
  /** The final state that it was told, when it waited for it. */
  state: number | undefined;
  outputJson: string | undefined;
  /** Standard output of the last attempt as it was followed live, resumed after every break; undefined: not followed. */
  followed: StoredChunk[] | undefined;
}

export interface ExecutionEvidence {
  plan: ExecutionPlan;
  /** Undefined: the call was refused until the end of the round. */
  answer: Answer | undefined;
  /** More than one: it was accepted more than once. */
  records: ExecutionRecord[];
  marks: Mark[];
}

/** What a fault may do to executions. */
export interface Allowance {
  /** Attempts may be lost or killed, so that executions without retries may fail. */
  attemptsMayFail: boolean;
  /** Output may be dropped, if the log says so. */
  outputMayBeDropped: boolean;
  /**
   * A replica may store late what another one has stored meanwhile, or end when the second of two writes under way is stored and the
   * first is not: then the agent sends both again to another one. Readers go by offsets and get each byte once, which is held against
   * what they get. Bytes that do not agree are counted all the same.
   */
  chunksMayOverlap: boolean;
}

export interface RoundEvidence {
  fault: string;
  allowance: Allowance;
  /** Whether there was something to hit. */
  hasStruck: boolean;
  /** On the clock of the marks. */
  injectedAtMs: number;
  /** When all executions were final and what ran had had its time to go. */
  quietAtMs: number;
  executions: ExecutionEvidence[];
  runs: RunEvidence[];
  schedules: ScheduleEvidence[];
  /** Processes of the world that belong to none of its living parents; one text each. */
  orphanProcesses: string[];
  /** Containers of attempts that are over; one text each. */
  orphanContainers: string[];
  /** Agents and replicas that ended although nobody had ended them; one text each. */
  endedByThemselves: string[];
  /** From the end of the fault until an execution on what it had hit succeeded; undefined: it never did. */
  recoveryMs: number | undefined;
}
