/** A step of an execution, as its watchers see it. */
export interface ToldStep {
  state: number;
  attempt: number;
  agentId: string;
}

/** What has happened to an execution since its watchers elsewhere were told last. */
export interface ToldChange {
  id: string;
  steps: ToldStep[];
  progress?: { percent: number; step: string };
  /** Whoever tells does not follow it any more: it has ended, or another replica has it. The database knows. */
  over: boolean;
}

/** What replicas tell each other. Each may be lost: a look into the database stands behind every one. */
export type BusMessage =
  /** A replica has come. */
  | { type: 'here' }
  /** Something waits that the sender could not place. */
  | { type: 'queued' }
  /** The sender has given these to agents of its own. */
  | { type: 'claimed'; executions: { id: string; attempt: number }[] }
  /** These have ended, or changed hands, without their follower. */
  | { type: 'moved'; ids: string[] }
  /** Tell the sender of changes of an execution, for a while; with `tell` also at once what has happened so far. */
  | { type: 'watch'; id: string; tell: boolean }
  | ({ type: 'changed' } & ToldChange)
  /** A caller wants it to stop; the database has the reason. */
  | { type: 'cancel'; id: string }
  /** Older links of the agent are to be closed. */
  | { type: 'agentLinked'; id: string; session: number }
  /** It was asked to drain or to resume, or was deleted: its row tells. */
  | { type: 'agentChanged'; id: string }
  /** There is a question to an agent of yours, in its table; its answer is there; nobody waits for it any more. */
  | { type: 'asked'; id: string }
  | { type: 'answered'; id: string }
  | { type: 'withdrawn'; id: string }
  /** A caller has said something to a workflow run of yours; its inbox has it. */
  | { type: 'workflowWord'; id: string }
  /** A schedule was made or changed: another time may be the next. */
  | { type: 'schedulesChanged' }
  | { type: 'modulesChanged'; tenantId: string; name: string; versionId: string };
