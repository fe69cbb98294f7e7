import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';
import type { PreparedEnvironment } from '../environment/environment.ts';
import { LauncherProtocolError } from '../launcher/frame-codec.ts';
import type { Launcher } from '../launcher/launcher.ts';
import type { AttemptKey, CancelReason, Executor, StartRefusal } from './executor.ts';
import type { GpuAccess, GpuAccessFinder } from './gpu-access.ts';
import { startMessage } from './start-message.ts';

/** Code and commands as processes of the launcher: in its sandbox, or in a container that is attached to it. */
export class ProcessExecutor implements Executor {
  readonly kind = 'process';
  readonly #launcher: Launcher;
  readonly #indexHosts: readonly string[];
  readonly #gpuAccess: GpuAccessFinder;

  /**
   * @param indexHosts what calls with network INDEX may reach, each `HOST:PORT`
   * @param gpuAccess how attempts get to their GPUs
   */
  constructor(launcher: Launcher, indexHosts: readonly string[], gpuAccess: GpuAccessFinder) {
    this.#launcher = launcher;
    this.#indexHosts = indexHosts;
    this.#gpuAccess = gpuAccess;
  }

  start(assignment: Assignment, prepared: PreparedEnvironment, prelude: Uint8Array): StartRefusal | undefined {
    const { start: environment, scriptCommand } = prepared;
    const gpus = this.#gpusOf(assignment, prepared);
    if (typeof gpus === 'string') return { error: { code: Code.SUBMIT_FAILED, message: gpus }, requeue: true };
    const options = { environment, scriptCommand, gpus, prelude, indexHosts: this.#indexHosts };
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

  /** A text says why the attempt cannot have its GPUs here. */
  #gpusOf({ gpuUuids }: Assignment, { start }: PreparedEnvironment): GpuAccess | string | undefined {
    if (gpuUuids.length === 0) return undefined;
    // The interpreter in a container has what its container has.
    if (start?.attached === true) return undefined;
    if (!this.#launcher.givesGpus) return "the agent's launcher is of an older version, which gives no GPUs";
    return this.#gpuAccess(gpuUuids);
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
