import { canMove, isFinal } from '@harrier/shared';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { ONE_SLOT, type Reservation } from '../agent-link/reservation.ts';
import type { FinishedExecution } from '../db/queries/finish-executions.ts';
import type { AttemptLog } from './attempt-log.ts';
import { ChangeSignal } from './change-signal.ts';
import type { ResolvedExecution } from './resolved-execution.ts';

/** A step of an execution, as watchers see it. */
export interface StateChange {
  state: State;
  attempt: number;
  agentId: string;
}

export interface ProgressReport {
  percent: number;
  step: string;
}

export interface ExecutionTimes {
  createTime: Date;
  queueTime: Date;
  assignTime: Date | undefined;
  startTime: Date | undefined;
  endTime: Date | undefined;
}

/** Everything that memory has of an execution that is not over: what its watchers follow. */
export class TrackedExecution {
  readonly resolved: ResolvedExecution;
  /** Told at every change of state or progress. */
  readonly changed = new ChangeSignal();
  /** Every step since this replica follows it. */
  readonly history: StateChange[] = [];
  readonly times: ExecutionTimes;
  failures: number;
  progress: ProgressReport | undefined;
  /** Log of the current attempt. */
  log: AttemptLog | undefined;
  /** Set when a caller asked to cancel. */
  cancelReason: string | undefined;
  /** Set when it is over: how. */
  result: FinishedExecution | undefined;
  /** A result of the current attempt is being stored: another one is not looked at. */
  ending = false;
  /** Why the end of the current attempt is not stored, for people; undefined while nothing is wrong with it. */
  endRefused: string | undefined;
  nextAttemptTime: Date | undefined;
  /** A state of the current attempt is being stored; settled when that is over, however it went. */
  storing: Promise<void> = Promise.resolve();
  /** What the current or last attempt takes of its agent. */
  reservation: Reservation = ONE_SLOT;
  /** How often it was put back without having started. */
  requeues = 0;

  constructor(resolved: ResolvedExecution, times: ExecutionTimes, failures: number) {
    this.resolved = resolved;
    this.times = times;
    this.failures = failures;
  }

  get id(): string {
    return this.resolved.id;
  }

  get current(): StateChange {
    return this.history.at(-1) ?? { state: State.STATE_UNSPECIFIED, attempt: 0, agentId: '' };
  }

  get finished(): boolean {
    return isFinal(this.current.state);
  }

  /** Whether an attempt is with an agent. */
  isHeldBy(agentId: string, attempt: number): boolean {
    const { current } = this;
    return (
      current.agentId === agentId && current.attempt === attempt && !this.finished && current.state !== State.PENDING
    );
  }

  /** The one place that moves an execution. @returns false for a move that the order of states does not know. */
  move(change: StateChange): boolean {
    if (!canMove(this.current.state, change.state)) return false;
    this.history.push(change);
    this.changed.notify();
    return true;
  }

  setProgress(progress: ProgressReport): void {
    this.progress = progress;
    this.changed.notify();
  }
}
