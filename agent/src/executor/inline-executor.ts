import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';
import { LauncherProtocolError } from '../launcher/frame-codec.ts';
import type { Launcher } from '../launcher/launcher.ts';
import type { AttemptKey, CancelReason, Executor, StartRefusal } from './executor.ts';
import { startMessage } from './start-message.ts';

/** The environment `inline`: Python code and commands in the launcher's sandbox, with the launcher's interpreter. */
export class InlineExecutor implements Executor {
  readonly kind = 'inline';
  readonly #launcher: Launcher;

  constructor(launcher: Launcher) {
    this.#launcher = launcher;
  }

  start(assignment: Assignment): StartRefusal | undefined {
    const start = startMessage(assignment);
    if (start === undefined) {
      const message = 'this agent runs python and command, and the assignment is neither';
      return { error: { code: Code.POLICY_DENIED, message }, requeue: false };
    }
    try {
      if (this.#launcher.startAttempt(start.message, ...start.body)) return undefined;
    } catch (error) {
      if (!(error instanceof LauncherProtocolError)) throw error;
      const message = `the arguments, variables, code or input are too large: ${error.message}`;
      return { error: { code: Code.INPUT_INVALID, message }, requeue: false };
    }
    return { error: { code: Code.SUBMIT_FAILED, message: "the agent's launcher is not running" }, requeue: true };
  }

  cancel(key: AttemptKey, reason: CancelReason, graceMs: number): void {
    this.#launcher.cancelAttempt(key.executionId, key.attempt, reason, graceMs);
  }

  acknowledgeOutput(key: AttemptKey, stdoutOffset: number, stderrOffset: number): void {
    this.#launcher.acknowledge(key.executionId, key.attempt, stdoutOffset, stderrOffset, false);
  }

  forget(key: AttemptKey): void {
    this.#launcher.acknowledge(key.executionId, key.attempt, 0, 0, true);
  }

  replay(): void {
    this.#launcher.replay();
  }
}
