/** What an execution runs in: `container` is a command in a container of its own, `docker` a handler in a warm one. */
export type Kind = 'inline' | 'command' | 'venv' | 'docker' | 'container';

/** How its caller waits: for the answer of the call, for its events, or by looking again later. `node`, `schedule`: a workflow or schedule asks for it. */
export type Way = 'execute' | 'follow' | 'create' | 'node' | 'schedule';

/** One execution, with everything that is decided about it beforehand. */
export interface ExecutionPlan {
  /** Its idempotency key, the name of its file of evidence, and what it prints. Unique in a run. */
  key: string;
  kind: Kind;
  way: Way;
  /** When its caller asks for it, from the beginning of the round. */
  arrivalMs: number;
  /** How long its code takes. */
  runMs: number;
  /** Lines that it prints, and the bytes of each. */
  lines: number;
  lineBytes: number;
  /** Its first attempts fail by themselves. Only where code knows the number of its attempt. */
  failures: number;
  /** Whether what is lost may be tried again. */
  retries: boolean;
  /** About half of its executions fail by themselves, and which ones their ids say. Only in workflows, which then try again. */
  isFlaky: boolean;
  /** Leaves a process behind that ignores every signal. */
  daemon: boolean;
}
