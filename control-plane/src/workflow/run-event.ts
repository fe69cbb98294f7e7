import type { EndState, NodeError, Stored } from './run-state.ts';

/** What happens to a run. `tries` tells a late answer from that for the current try. */
export type RunEvent =
  /** It was accepted. */
  | { type: 'begin' }
  /** An execution has ended. */
  | {
      type: 'ended';
      path: string;
      tries: number;
      state: EndState;
      executionId?: string;
      output?: Stored;
      error?: NodeError;
    }
  /** What an instance in phase `compute` or `output` waits for; what is given depends on its kind. */
  | { type: 'computed'; path: string; tries: number; value?: Stored; items?: number; dueMs?: number }
  /** The same could not be computed. */
  | { type: 'not_computed'; path: string; tries: number; error: NodeError }
  /** What an instance in phase `decide` waits for: the edges that are taken, by index, the variables to set, and a line for the log. */
  | { type: 'decided'; path: string; taken: readonly number[]; variables?: Record<string, unknown>; why: string }
  | { type: 'signalled'; path: string; payload: Stored }
  /** Time has passed: timers and deadlines are looked at. */
  | { type: 'time' }
  /** It is stopped: on somebody's word, or because it cannot go on. */
  | { type: 'cancel'; error: NodeError; state?: 'FAILED' }
  /** A run that did not succeed is started again. */
  | { type: 'retry' };

/** What the engine does not know by itself. */
export interface Now {
  /** Milliseconds since 1970. */
  ms: number;
  /** From 0 to below 1, for the jitter of a backoff. */
  random: number;
}
