import { Execution_State as State } from './gen/harrier/v1/execution_pb.ts';

/**
 * PENDING → ASSIGNED → PREPARING → RUNNING → SUCCEEDED | FAILED | TIMED_OUT | CANCELLED.
 * A retry goes from any state of a running attempt back to PENDING. A final state is never left.
 */
const MOVES: Readonly<Record<State, readonly State[]>> = {
  [State.STATE_UNSPECIFIED]: [State.PENDING, State.ASSIGNED],
  [State.PENDING]: [State.ASSIGNED, State.FAILED, State.CANCELLED],
  [State.ASSIGNED]: [
    State.PREPARING,
    State.RUNNING,
    State.PENDING,
    State.SUCCEEDED,
    State.FAILED,
    State.TIMED_OUT,
    State.CANCELLED,
  ],
  [State.PREPARING]: [State.RUNNING, State.PENDING, State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED],
  [State.RUNNING]: [State.PENDING, State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED],
  [State.SUCCEEDED]: [],
  [State.FAILED]: [],
  [State.TIMED_OUT]: [],
  [State.CANCELLED]: [],
};

export function canMove(from: State, to: State): boolean {
  return MOVES[from]?.includes(to) ?? false;
}

/** SUCCEEDED, FAILED, TIMED_OUT and CANCELLED. */
export function isFinal(state: State): boolean {
  return state !== State.STATE_UNSPECIFIED && MOVES[state]?.length === 0;
}
