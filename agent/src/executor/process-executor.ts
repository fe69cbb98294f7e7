import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';
import type { PreparedEnvironment } from '../environment/environment.ts';
import { LauncherProtocolError } from '../launcher/frame-codec.ts';
import type { Launcher } from '../launcher/launcher.ts';
import type { AttemptKey, CancelReason, Executor, StartRefusal } from './executor.ts';
import { startMessage } from './start-message.ts';

/** Code and commands as processes of the launcher: in its sandbox, or in a container that is attached to it. */
export class ProcessExecutor implements Executor {
  readonly kind = 'process';
  readonly #launcher: Launcher;
  readonly #indexHosts: readonly string[];

  /** @param indexHosts what calls with network INDEX may reach, each `HOST:PORT` */
  constructor(launcher: Launcher, indexHosts: readonly string[]) {
    this.#launcher = launcher;
    this.#indexHosts = indexHosts;
  }

  start(assignment: Assignment, prepared: PreparedEnvironment, prelude: Uint8Array): StartRefusal | undefined {
    const { start: environment, scriptCommand } = prepared;
    const options = { environment, scriptCommand, prelude, indexHosts: this.#indexHosts };
    const start = startMessage(assignment, options);
    if (start === undefined) {
      const message = 'this agent has nothing that runs what the assignment holds';
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
