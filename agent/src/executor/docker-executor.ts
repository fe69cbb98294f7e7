import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';
import { Limits_Network as Network } from '@harrier/shared/gen/module';
import type { ContainerBudget } from '../docker/container-budget.ts';
import { LABEL } from '../docker/container-list.ts';
import { containerOptions, NO_GPUS } from '../docker/container-policy.ts';
import { ContainerRun, LogOverrunError } from '../docker/container-run.ts';
import { removeOtherContainers } from '../docker/container-sweep.ts';
import { type DockerEngine, engineMessage } from '../docker/engine.ts';
import type { HeldImage, Images } from '../docker/images.ts';
import { wasOutOfMemory } from '../docker/out-of-memory.ts';
import type { OutputStream } from '../docker/stream-frames.ts';
import { PreparedImage } from '../environment/docker-environment.ts';
import type { PreparedEnvironment } from '../environment/environment.ts';
import { BOOT } from '../environment/manifest.ts';
import { factsOf, specOf } from './container-facts.ts';
import type { ContainerGuard } from './container-guard.ts';
import { containerOutcome, LEASE_OVER, type Outcome } from './container-outcome.ts';
import { type ProgramInContainer, programInContainer, type ScriptRunner } from './container-program.ts';
import { CANCELLED, denied, failed, neverRan } from './container-refusal.ts';
import { ContainerStops, keepOrTell } from './container-stops.ts';
import { DockerAttempt } from './docker-attempt.ts';
import type { AttemptKey, CancelReason, Executor, ExecutorEvents, StartRefusal } from './executor.ts';
import { aboutAttempt, logFacts } from './log-facts.ts';

export interface DockerExecutorOptions {
  engine: DockerEngine;
  images: Images;
  budget: ContainerBudget;
  /** Directory of the agent: what its containers are told apart by, and where attempts are kept. */
  dataDir: string;
  /** Ends containers with the lease, also when this process cannot. */
  guard: ContainerGuard;
  /** How source text is run, by language. */
  runners: Readonly<Record<string, ScriptRunner>>;
  events: ExecutorEvents;
  /** Gives back an attempt of which nothing has run. @returns whether that was told; if not, it is tried again at the next replay */
  onRefused: (key: AttemptKey, error: StartRefusal['error']) => boolean;
  logger: Logger;
}

/** An engine that has just ended is not missed at once. */
const RETRY_MS = 500;
const MAX_FAILURES = 10;

/**
 * Images that follow the container protocol, source text in runner images, and commands in an image: one container for
 * each call. Output and result are kept in files, so that attempts outlive the agent: containers run on, and an agent
 * that is started again takes them up.
 */
export class DockerExecutor implements Executor {
  readonly kind = 'docker';
  readonly #options: DockerExecutorOptions;
  readonly #directory: string;
  readonly #attempts = new Map<string, DockerAttempt>();
  readonly #stops: ContainerStops;
  #closed = false;
  /** Somebody has been told what there is, and can be told what becomes of it. */
  #isListed = false;

  constructor(options: DockerExecutorOptions) {
    this.#options = options;
    this.#directory = join(options.dataDir, 'containers');
    this.#stops = new ContainerStops(options.logger);
  }

  /** Bytes of output and results here that the control plane has not acknowledged. */
  get unacknowledgedBytes(): number {
    return [...this.#attempts.values()].reduce((sum, attempt) => sum + attempt.unacknowledgedBytes, 0);
  }

  /** Takes up what a former agent has left: to be called once, before anything is started. */
  open(): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(this.#directory)) this.#recoverOrDrop(join(this.#directory, name));
    this.#options.engine.onChange(() => this.#engineChanged());
    this.#engineChanged();
    // Whoever has attempts here knows of them before the control plane asks.
    this.replay();
  }

  /** Leaves everything to a later agent. */
  close(): void {
    this.#closed = true;
    for (const attempt of this.#attempts.values()) attempt.close();
  }

  start(assignment: Assignment, prepared: PreparedEnvironment, prelude: Uint8Array): StartRefusal | undefined {
    const { engine, runners } = this.#options;
    const key = { executionId: assignment.ref?.executionId ?? '', attempt: assignment.ref?.attempt ?? 0 };
    if (this.#attempts.has(keyOf(key))) return undefined;
    const gone = engine.unavailable();
    if (gone !== undefined) return { error: { code: Code.SUBMIT_FAILED, message: gone }, requeue: true };
    const network = assignment.limits?.network ?? Network.NONE;
    if (network !== Network.NONE && network !== Network.NETWORK_UNSPECIFIED) {
      return denied('limits.network: containers have no network');
    }
    if (assignment.gpuUuids.length > 0 && engine.facts.gpus === undefined) {
      return { error: { code: Code.SUBMIT_FAILED, message: NO_GPUS }, requeue: true };
    }
    const program = programInContainer(assignment, runners);
    if (program === undefined) return denied('this agent does not run this kind of program in a container');
    const facts = factsOf(key, assignment, program, prelude.length);
    let attempt: DockerAttempt;
    try {
      attempt = new DockerAttempt(join(this.#directory, keyOf(key)), facts, this.#run(key), this.#emit(key));
      attempt.files.append('stderr', prelude);
    } catch (error) {
      const message = `the agent cannot keep the attempt: ${messageOf(error)}`;
      return { error: { code: Code.SUBMIT_FAILED, message }, requeue: true };
    }
    attempt.sender.skip('stderr', prelude.length);
    this.#attempts.set(keyOf(key), attempt);
    this.#guard(attempt);
    const image = prepared instanceof PreparedImage ? prepared.image : undefined;
    void this.#execute(attempt, program, assignment, image);
    return undefined;
  }

  cancel(key: AttemptKey, reason: CancelReason, graceMs: number): void {
    const attempt = this.#attempts.get(keyOf(key));
    if (attempt === undefined) return;
    if (reason === 'shutdown' && attempt.ending === undefined && !attempt.started && !attempt.run.startAsked) {
      const why = 'the agent was stopped before it had started the container';
      this.#giveBack(attempt, { code: Code.SUBMIT_FAILED, message: why });
      attempt.abort.abort(new Error(why));
      return;
    }
    this.#stops.stop(attempt, 'cancel', graceMs);
    if (attempt.refusal !== undefined) this.#finish(attempt, CANCELLED, 0);
  }

  acknowledgeOutput(key: AttemptKey, stdoutOffset: number, stderrOffset: number): void {
    const attempt = this.#attempts.get(keyOf(key));
    if (attempt === undefined) return;
    const before = attempt.sender.drained;
    attempt.sender.acknowledge(stdoutOffset, stderrOffset);
    if (!before) this.#tellEnd(attempt);
  }

  forget(key: AttemptKey): void {
    const attempt = this.#attempts.get(keyOf(key));
    if (attempt === undefined) return;
    this.#attempts.delete(keyOf(key));
    attempt.remove();
  }

  replay(): void {
    queueMicrotask(() => {
      if (this.#closed) return;
      const { events } = this.#options;
      const all = [...this.#attempts.values()];
      const held = all.map(({ facts, ended, started }) => {
        const { executionId, attempt, gpuUuids } = facts;
        const about = { executionId, attempt, ...aboutAttempt(facts) };
        return { ...about, finished: ended, started, ...(gpuUuids && { gpuUuids }) };
      });
      events.onRecovered(this, held);
      this.#isListed = true;
      for (const attempt of all) {
        // What was listed may have been told to stop, and was given back.
        if (this.#attempts.get(keyOf(attempt.facts)) !== attempt) continue;
        attempt.sender.rewind();
        attempt.sender.send();
        this.#tellEnd(attempt);
      }
    });
  }

  /** Another guard has taken over, which knows of none. */
  guardAll(): void {
    for (const attempt of this.#attempts.values()) {
      if (!attempt.ended && attempt.refusal === undefined) this.#guard(attempt);
    }
  }

  #guard({ facts, run, leaseMark }: DockerAttempt): void {
    this.#options.guard.guard(facts, { name: run.name, mark: leaseMark, maxDisconnectMs: facts.maxDisconnectMs ?? 0 });
  }

  // From nothing to a running container.

  async #execute(
    attempt: DockerAttempt,
    program: ProgramInContainer,
    assignment: Assignment,
    prepared: HeldImage | undefined,
  ): Promise<void> {
    try {
      const { budget, images, engine } = this.#options;
      const { signal } = attempt.abort;
      attempt.release = await budget.take(AbortSignal.any([signal, engine.lost]));
      const onOutput = (data: Uint8Array): void => this.#append(attempt, 'stderr', data);
      const pulling = { onOutput, onProgress: () => {} };
      const image = prepared ?? (await images.ensure(program.image, program.pull, pulling, signal));
      const spec = specOf(this.#options.dataDir, attempt.facts, program, assignment, image);
      const sink = (stream: OutputStream, data: Buffer): void => this.#append(attempt, stream, data);
      const beforeStart = (): void => attempt.setBefore();
      if (attempt.ending === 'lease') throw new Error(LEASE_OVER);
      const options = containerOptions(spec, engine.facts);
      const running = await attempt.run.start(options, program.stdin, sink, signal, beforeStart);
      attempt.started = true;
      attempt.followed = true;
      attempt.meter.begin();
      this.#options.events.onStarted(attempt.facts);
      attempt.sender.send();
      this.#stops.noteStart(attempt);
      this.#stops.startTimeout(attempt, Date.now());
      // A cancel, or the end of the lease, that came while the container was being started.
      if (attempt.ending !== undefined) void this.#stops.kill(attempt, 'SIGKILL');
      void running.handedOver.then(() => this.#handedOver(attempt));
      await running.ended;
      await this.#settle(attempt);
    } catch (error) {
      if (attempt.started) this.#broken(attempt, error);
      else this.#notStarted(attempt, error);
    }
  }

  /** What has not run because the engine is gone may run elsewhere. */
  #notStarted(attempt: DockerAttempt, error: unknown): void {
    if (attempt.refusal !== undefined) return;
    const outcome = neverRan(attempt, error);
    if (outcome.error?.code !== Code.SUBMIT_FAILED) this.#finish(attempt, outcome, 0);
    else if (!attempt.run.startAsked) this.#giveBack(attempt, outcome.error);
    else {
      attempt.uncertain = true;
      attempt.started = true;
      this.#broken(attempt, error);
    }
  }

  /** Another agent may start it, unless it was told to end. */
  #neverStarted(attempt: DockerAttempt, message: string): void {
    const { ending } = attempt;
    if (ending === undefined) this.#giveBack(attempt, { code: Code.SUBMIT_FAILED, message });
    else this.#finish(attempt, ending === 'lease' ? failed(Code.AGENT_LOST, LEASE_OVER) : CANCELLED, 0);
  }

  #giveBack(attempt: DockerAttempt, why: StartRefusal['error']): void {
    if (this.#closed || attempt.ended) return;
    attempt.refusal = why;
    attempt.followed = false;
    void this.#removeContainer(attempt);
    this.#tellEnd(attempt);
  }

  #handedOver(attempt: DockerAttempt): void {
    if (!this.#closed && !attempt.ended) keepOrTell(attempt, this.#options.logger, () => attempt.setHandedOver());
  }

  // From a running container to its end.

  #append(attempt: DockerAttempt, stream: OutputStream, data: Uint8Array): void {
    if (this.#closed || attempt.ended) return;
    attempt.files.append(stream, data);
    // Output follows the news of the start.
    if (attempt.started) attempt.sender.send();
  }

  /** Both streams are at their end: what the engine says of the container says how the attempt ended. */
  async #settle(attempt: DockerAttempt): Promise<void> {
    const { facts, files, run, meter } = attempt;
    const exit = await run.exit();
    const { ending, engineLost } = attempt;
    // Whoever was told to end was killed for that.
    const isOwnEnd = ending === undefined && !engineLost;
    const oomKilled = isOwnEnd && (await wasOutOfMemory(run, exit, meter.usage, facts.memoryBytes));
    if (this.#closed || attempt.ended) return;
    const isLog = facts.program === 'command';
    const outcome = containerOutcome({
      ...facts,
      exit: { ...exit, oomKilled },
      ending,
      engineLost,
      stdout: isLog ? new Uint8Array(0) : files.read('stdout', 0, files.length('stdout')),
      stdoutTruncated: files.truncated('stdout'),
    });
    this.#finish(attempt, outcome, exit.runMs);
  }

  #finish(attempt: DockerAttempt, outcome: Outcome, runMs: number): void {
    if (this.#closed || attempt.ended) return;
    keepOrTell(attempt, this.#options.logger, () => attempt.finish(outcome, runMs));
    attempt.followed = false;
    attempt.sender.send();
    void this.#removeContainer(attempt);
    this.#tellEnd(attempt);
  }

  async #removeContainer(attempt: DockerAttempt): Promise<void> {
    try {
      await attempt.run.remove();
    } catch (error) {
      // It is removed when the engine is back; see #sweep.
      this.#options.logger.warn(
        { ...logFacts(attempt.facts), container: attempt.run.name, reason: engineMessage(error) },
        'container not removed',
      );
    } finally {
      attempt.release();
      this.#options.guard.release(attempt.facts);
    }
  }

  #tellEnd(attempt: DockerAttempt): void {
    const { end, sender, facts, refusal } = attempt;
    if (!this.#isListed || !sender.drained) return;
    if (end !== undefined) this.#options.events.onFinished(facts, end);
    else if (refusal !== undefined && this.#options.onRefused(facts, refusal)) {
      // When it was recovered, no launcher answered yet.
      this.#options.guard.release(facts);
      this.forget(facts);
    }
  }

  // Containers that nobody follows: after a restart of the agent, and when the engine was lost.

  /** What cannot be read is not held any more: the control plane ends it as AGENT_LOST, and its container is swept. */
  #recoverOrDrop(directory: string): void {
    try {
      this.#recover(directory);
    } catch (error) {
      this.#options.logger.error({ directory, reason: messageOf(error) }, 'attempt of a former agent dropped');
      rmSync(directory, { recursive: true, force: true });
    }
  }

  #recover(directory: string): void {
    const facts = DockerAttempt.factsIn(directory);
    if (facts === undefined) {
      rmSync(directory, { recursive: true, force: true });
      return;
    }
    const attempt = new DockerAttempt(directory, facts, this.#run(facts), this.#emit(facts));
    this.#attempts.set(keyOf(facts), attempt);
    if (attempt.ended) return;
    if (!attempt.started) {
      this.#neverStarted(attempt, 'the agent was restarted before it had started the container');
      return;
    }
    attempt.release = this.#options.budget.adopt();
    this.#guard(attempt);
    // Its container has ended with the host.
    attempt.engineLost = facts.bootId !== undefined && facts.bootId !== BOOT;
  }

  #engineChanged(): void {
    if (this.#closed) return;
    const gone = this.#options.engine.unavailable() !== undefined;
    for (const attempt of this.#attempts.values()) {
      if (attempt.ended || attempt.refusal !== undefined || !attempt.started) continue;
      if (gone) attempt.engineLost = true;
      else if (!attempt.followed) void this.#resume(attempt);
    }
    if (!gone) void this.#sweep();
  }

  #broken(attempt: DockerAttempt, error: unknown): void {
    attempt.followed = false;
    if (this.#closed || attempt.ended) return;
    const { engine, logger } = this.#options;
    if (engine.unavailable() !== undefined) return;
    const isLost = error instanceof LogOverrunError || ++attempt.failures > MAX_FAILURES;
    logger.warn(
      { ...logFacts(attempt.facts), container: attempt.run.name, reason: messageOf(error) },
      'container not followed',
    );
    if (isLost) this.#finish(attempt, failed(Code.INTERNAL, messageOf(error)), 0);
    else setTimeout(() => this.#retry(attempt), RETRY_MS).unref();
  }

  #retry(attempt: DockerAttempt): void {
    if (this.#closed || attempt.ended || attempt.followed) return;
    if (this.#options.engine.unavailable() === undefined) void this.#resume(attempt);
  }

  async #resume(attempt: DockerAttempt): Promise<void> {
    attempt.followed = true;
    try {
      const state = await attempt.run.state();
      if (this.#closed || attempt.ended) return;
      if (state.kind === 'created' && attempt.uncertain) {
        this.#neverStarted(attempt, 'the Docker engine was lost before it had started the container');
        return;
      }
      if (state.kind === 'missing' || state.kind === 'created') {
        this.#finish(attempt, failed(Code.AGENT_LOST, 'the container is gone'), 0);
        return;
      }
      if (!attempt.handedOver) {
        this.#finish(attempt, failed(Code.AGENT_LOST, 'the agent was lost before it had handed the input over'), 0);
        return;
      }
      if (attempt.ending !== undefined) await attempt.run.signal('SIGKILL');
      else if (state.kind === 'running') this.#stops.startTimeout(attempt, state.startedAtMs);
      const sink = (stream: OutputStream, data: Buffer): void => this.#append(attempt, stream, data);
      attempt.meter.begin();
      await attempt.run.follow(attempt.known, attempt.wantedLogBytes, sink);
      await this.#settle(attempt);
    } catch (error) {
      this.#broken(attempt, error);
    }
  }

  /** Removes containers of this agent whose attempts have ended or are not known. */
  async #sweep(): Promise<void> {
    const { engine, dataDir, logger } = this.#options;
    const isWanted = (name: string) =>
      [...this.#attempts.values()].some(
        ({ ended, refusal, run }) => !ended && refusal === undefined && run.name === name,
      );
    await removeOtherContainers(engine, { [LABEL.agent]: dataDir, [LABEL.role]: 'run' }, isWanted, logger);
  }

  #run(key: AttemptKey): ContainerRun {
    const agent = createHash('sha256').update(this.#options.dataDir).digest('hex').slice(0, 8);
    return new ContainerRun(this.#options.engine, `harrier-${agent}-${key.executionId}-${key.attempt}`);
  }

  #emit({ executionId, attempt }: AttemptKey): (stream: OutputStream, offset: number, data: Uint8Array) => void {
    return (stream, offset, data) => this.#options.events.onOutput({ executionId, attempt }, stream, offset, data);
  }
}

function keyOf({ executionId, attempt }: AttemptKey): string {
  return `${executionId}.${attempt}`;
}
