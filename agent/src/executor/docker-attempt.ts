import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { JsonObject } from '@bufbuild/protobuf';
import type { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { AttemptFiles, keptFacts } from '../docker/attempt-files.ts';
import { type ContainerUsage, NO_USAGE } from '../docker/container-groups.ts';
import { ContainerMeter } from '../docker/container-meter.ts';
import type { ContainerRun } from '../docker/container-run.ts';
import type { OutputStream } from '../docker/stream-frames.ts';
import type { ContainerProgram, Ending, Outcome } from './container-outcome.ts';
import type { AttemptEnd, StartRefusal } from './executor.ts';
import type { LogFacts } from './log-facts.ts';
import { OutputSender } from './output-sender.ts';

/** What must be known of an attempt when the agent was started again. */
export interface AttemptFacts extends LogFacts {
  program: ContainerProgram;
  /** The boot of the host in which it was started; absent: not known. */
  bootId?: string;
  /** The file of a command. */
  file: string;
  /** 0: none. */
  timeoutMs: number;
  /** How long it may run on after the lease has ended; absent: kept by an agent that knew no leases. */
  maxDisconnectMs?: number;
  /** What is reserved for it; absent: nothing. */
  gpuUuids?: readonly string[];
  memoryBytes: number;
  /** Largest result. */
  outputBytes: number;
  stdoutBytes: number;
  stderrBytes: number;
  /** What the engine keeps of the container's output, at least. */
  logBytes: number;
}

/** How an attempt ended, as it is kept. */
interface KeptEnd {
  outcome: AttemptEnd['outcome'];
  error: { code: Code; message: string; details?: JsonObject | undefined } | null;
  exitCode: number | null;
  /** JSON text. */
  output: string;
  runMs: number;
  /** Absent: kept by an agent that did not measure it. */
  cpuMs?: number;
  maxMemoryBytes?: number;
}

/** Beside the result, a document has the names of its members; a longer one is too large whatever is in it. */
const ENVELOPE_BYTES = 64 * 1024;
const FACTS = 'facts.json';
const END = 'end.json';
const ENDING = 'ending.json';
const HANDED_OVER = 'handed-over.json';
const BEFORE = 'before.json';
const START = 'start.json';
const USAGE = 'usage.json';
/** Made by the launcher. */
const LEASE_OVER = 'lease-over';

/**
 * An attempt in a container, on this agent until it is forgotten:
 *
 *   waiting ──container runs──▶ running ──ended──▶ ended
 *      ├──────────refused, cancelled──────────────▲
 *      └──the engine is lost, or the agent──▶ given back
 *
 * Its files hold what a restarted agent needs to go on.
 */
export class DockerAttempt {
  readonly facts: AttemptFacts;
  readonly run: ContainerRun;
  readonly files: AttemptFiles;
  readonly sender: OutputSender;
  readonly meter: ContainerMeter;
  /** Aborted with an Ending as reason when it is to end before its container runs. */
  readonly abort = new AbortController();
  /** Its container runs or ran; of one that a former agent has left: may have run. */
  started = false;
  /** The engine was lost when it was asked to start the container: nobody knows yet whether it did. */
  uncertain = false;
  /** Why nothing of it has run; the control plane is to be told, and another agent may try. */
  refusal: StartRefusal['error'] | undefined;
  /** Somebody follows the container. */
  followed = false;
  engineLost = false;
  /** Times that its container could not be followed although the engine was there. */
  failures = 0;
  /** Gives back its place among the containers. */
  release: () => void = () => {};
  /** The next signal to its container. */
  timer: NodeJS.Timeout | undefined;
  #startMs: number | undefined;
  #end: KeptEnd | undefined;
  #ending: Ending | undefined;

  /**
   * @param directory its own; what a former agent has left there is taken up
   * @throws Error when that cannot be read
   */
  constructor(
    directory: string,
    facts: AttemptFacts,
    run: ContainerRun,
    emit: (stream: OutputStream, offset: number, data: Uint8Array) => void,
  ) {
    this.facts = facts;
    this.run = run;
    this.meter = new ContainerMeter(run, keptUsage(directory), (usage) => this.#keepUsage(usage));
    this.#end = keptFacts(directory, END) as KeptEnd | undefined;
    this.#ending = keptFacts(directory, ENDING) as Ending | undefined;
    this.#startMs = keptNote(directory, START) as number | undefined;
    const hasLog = facts.program === 'command';
    this.files = AttemptFiles.open(directory, {
      stdout: { bytes: hasLog ? facts.stdoutBytes : facts.outputBytes + ENVELOPE_BYTES, marked: hasLog },
      stderr: { bytes: facts.stderrBytes, marked: true },
    });
    this.sender = new OutputSender(this.files, hasLog ? ['stdout', 'stderr'] : ['stderr'], emit);
    if (this.files.kept(FACTS) === undefined) this.files.keep(FACTS, facts);
    else this.started = this.files.kept(BEFORE) !== undefined;
  }

  /**
   * The facts of an attempt that a former agent has left; undefined when it left none.
   * @throws Error when they cannot be read
   */
  static factsIn(directory: string): AttemptFacts | undefined {
    return keptFacts(directory, FACTS) as AttemptFacts | undefined;
  }

  /** Why it was told to end. The first reason stands. */
  get ending(): Ending | undefined {
    return this.#ending ?? (existsSync(this.leaseMark) ? 'lease' : undefined);
  }

  /** The file that is there when it was ended with the lease. */
  get leaseMark(): string {
    return join(this.files.directory, LEASE_OVER);
  }

  set ending(ending: Ending) {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.files.keep(ENDING, ending);
  }

  /**
   * The engine is about to be asked to start the container: what is in standard error by now was not written by it, and from now
   * on a later agent cannot say that nothing of it has run.
   */
  setBefore(): void {
    this.files.keep(BEFORE, this.files.length('stderr'));
  }

  /** Bytes that the container has written as far as they are known; of a stream that is cut off, all. */
  get known(): Record<OutputStream, number> {
    const before = (this.files.kept(BEFORE) as number | undefined) ?? 0;
    const known = (stream: OutputStream, own: number): number =>
      this.files.truncated(stream) ? Number.POSITIVE_INFINITY : this.files.length(stream) - own;
    return { stdout: known('stdout', 0), stderr: known('stderr', before) };
  }

  /** What the container's log must still hold to be of use; infinite when only a result is wanted, which comes last. */
  get wantedLogBytes(): number {
    const { program, logBytes } = this.facts;
    const wantsResultOnly = program === 'protocol' && this.files.truncated('stderr') && this.known.stdout === 0;
    return wantsResultOnly ? Number.POSITIVE_INFINITY : logBytes;
  }

  /** Whether its container has got all of its input. */
  get handedOver(): boolean {
    return this.files.kept(HANDED_OVER) === true;
  }

  setHandedOver(): void {
    this.files.keep(HANDED_OVER, true);
  }

  /** @param nowMs by the clock that counts from the start of the host */
  noteStart(nowMs: number): void {
    this.#startMs = nowMs;
    this.files.note(START, nowMs);
  }

  /** When its container was started, by that clock; undefined: no agent has noted it. */
  get startMs(): number | undefined {
    return this.#startMs;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** Keeps how it ended; an end is for good. */
  finish({ outcome, error, exitCode, output }: Outcome, runMs: number): void {
    clearTimeout(this.timer);
    this.meter.end();
    const { cpuMs, maxMemoryBytes } = this.meter.usage;
    const kept = error === undefined ? null : { ...error };
    const text = Buffer.from(output).toString('utf8');
    this.#end = { outcome, error: kept, exitCode: exitCode ?? null, output: text, runMs, cpuMs, maxMemoryBytes };
    this.files.keep(END, this.#end);
  }

  /** How it ended. */
  get end(): AttemptEnd | undefined {
    if (this.#end === undefined) return undefined;
    const { outcome, error, exitCode, output, runMs, cpuMs = 0, maxMemoryBytes = 0 } = this.#end;
    return {
      outcome,
      error: error === null ? undefined : errorOf(error),
      exitCode: exitCode ?? undefined,
      output: Buffer.from(output, 'utf8'),
      runMs,
      cpuMs,
      maxRssBytes: maxMemoryBytes,
      stdoutBytes: this.sender.length('stdout'),
      stderrBytes: this.sender.length('stderr'),
      stdoutTruncated: this.facts.program === 'command' && this.files.truncated('stdout'),
      stderrTruncated: this.files.truncated('stderr'),
    };
  }

  /** Bytes of output and result that the control plane has not acknowledged. */
  get unacknowledgedBytes(): number {
    // Where standard output is no log, it is the document with the result.
    const document = this.facts.program === 'command' ? 0 : this.files.length('stdout');
    return this.sender.unacknowledgedBytes + Math.max(document, Buffer.byteLength(this.#end?.output ?? ''));
  }

  /** Leaves it to a later agent. */
  close(): void {
    clearTimeout(this.timer);
    this.meter.end();
    if (this.started && !this.ended) this.#keepUsage(this.meter.usage);
    this.files.close();
  }

  remove(): void {
    clearTimeout(this.timer);
    this.meter.end();
    this.files.remove();
  }

  #keepUsage(usage: ContainerUsage): void {
    try {
      this.files.note(USAGE, usage);
    } catch {
      // A disk that is full costs a later agent this, and nothing else.
    }
  }
}

/** What a former agent saw its container use; nothing where it saw none, or the host has failed since. */
function keptUsage(directory: string): ContainerUsage {
  return (keptNote(directory, USAGE) as ContainerUsage | undefined) ?? NO_USAGE;
}

/** What is not synced may be unreadable after the host has failed. */
function keptNote(directory: string, name: string): unknown {
  try {
    return keptFacts(directory, name);
  } catch {
    return undefined;
  }
}

/** A field that is absent in JSON is absent, not undefined. */
function errorOf({ code, message, details }: NonNullable<KeptEnd['error']>): NonNullable<AttemptEnd['error']> {
  return { code, message, ...(details === undefined ? {} : { details }) };
}
