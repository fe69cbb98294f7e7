import type { ExecutionPlan } from './plan.ts';

/** A line that code wrote to its file of evidence, past everything of Harrier. */
export interface Mark {
  /** Number of the attempt; 0: the code is not told. */
  attempt: number;
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
}

export interface RoundEvidence {
  fault: string;
  allowance: Allowance;
  /** On the clock of the marks. */
  injectedAtMs: number;
  /** When all executions were final and what ran had had its time to go. */
  quietAtMs: number;
  executions: ExecutionEvidence[];
  /** Processes of the world that belong to none of its living parents; one text each. */
  orphanProcesses: string[];
  /** Containers of attempts that are over; one text each. */
  orphanContainers: string[];
  /** Agents and replicas that ended although nobody had ended them; one text each. */
  endedByThemselves: string[];
  /** From the end of the fault until an execution on what it had hit succeeded; undefined: it never did. */
  recoveryMs: number | undefined;
}
