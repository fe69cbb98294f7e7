import type Docker from 'dockerode';
import type { ContainerUsage } from './container-groups.ts';
import { type DockerEngine, engineStatus } from './engine.ts';
import { type OutputStream, StreamFrames } from './stream-frames.ts';
import { whileUp } from './while-up.ts';

/** How a container ended. */
export interface ContainerExit {
  exitCode: number;
  /** The kernel killed a process of it because its memory was used up. */
  oomKilled: boolean;
  /** From the start of its first process to its end. */
  runMs: number;
}

/** What the engine says of a container. */
export type ContainerState = { kind: 'missing' | 'created' } | { kind: 'running' | 'exited'; startedAtMs: number };

export interface RunningContainer {
  /** Resolves when the engine has taken all of the standard input. */
  handedOver: Promise<void>;
  /** Resolves when both streams are at their end. */
  ended: Promise<void>;
}

/** The log of a container that is followed again has dropped its beginning: nobody knows what is missing. */
export class LogOverrunError extends Error {
  constructor(logBytes: number) {
    super(`the container wrote more than the ${logBytes} bytes that the engine keeps while the agent was away`);
    this.name = 'LogOverrunError';
  }
}

type OnOutput = (stream: OutputStream, data: Buffer) => void;
type Duplex = NodeJS.ReadWriteStream & { destroy(error?: Error): void };
type Readable = NodeJS.ReadableStream & { destroy(error?: Error): void };

/** What an entry of the engine's log takes on disk beyond its bytes, at most. */
const LOG_ENTRY_BYTES = 64;

/** One container, by its name. Every method rejects with EngineUnavailableError when the engine is or gets lost. */
export class ContainerRun {
  readonly name: string;
  readonly #engine: DockerEngine;
  #id: string | undefined;
  #startAsked = false;

  constructor(engine: DockerEngine, name: string) {
    this.#engine = engine;
    this.name = name;
  }

  /** What the engine calls it; undefined until it was created or asked for. */
  get id(): string | undefined {
    return this.#id;
  }

  /** The engine was asked to start it, and may have done so, whatever it has answered. */
  get startAsked(): boolean {
    return this.#startAsked;
  }

  /**
   * Creates and starts the container; resolves when its program runs. Without `stdin` its standard input is empty. Output
   * is passed on as it comes: while it is not taken, the container's writes block, as those to a pipe do. When it throws,
   * the container may be there: it is to be removed.
   * @param beforeStart called when the container is there and before the engine is asked to start it
   */
  async start(
    options: Docker.ContainerCreateOptions,
    stdin: Uint8Array | undefined,
    onOutput: OnOutput,
    signal: AbortSignal,
    beforeStart: () => void = () => {},
  ): Promise<RunningContainer> {
    const container = await this.#create(options, signal);
    const attach = { stream: true, stdin: stdin !== undefined, stdout: true, stderr: true, hijack: true };
    const attached = container.attach(attach) as Promise<Duplex>;
    const stream = await this.#whileUp(attached, signal).catch((error: unknown) => {
      attached.then(
        (late) => late.destroy(),
        () => {},
      );
      throw error;
    });
    const ended = this.#read(stream, new StreamFrames(onOutput));
    // Whoever starts a container may fail before anybody waits for its end.
    ended.catch(() => {});
    try {
      beforeStart();
      this.#startAsked = true;
      await this.#whileUp(container.start(), signal);
    } catch (error) {
      stream.destroy();
      throw error;
    }
    const handedOver = new Promise<void>((resolve) => {
      if (stdin === undefined) resolve();
      else stream.end(stdin, () => resolve());
    });
    return { handedOver, ended };
  }

  async #create(options: Docker.ContainerCreateOptions, signal: AbortSignal): Promise<Docker.Container> {
    const created = this.#engine.docker.createContainer({ ...options, name: this.name });
    try {
      const container = await this.#whileUp(created, signal);
      this.#id = container.id;
      return container;
    } catch (error) {
      // Whoever was told so removes the container before the engine has made it.
      created.then(() => this.remove()).catch(() => {});
      throw error;
    }
  }

  /**
   * Reads the output of a container that was started before, from its log: all that is there, and then what comes.
   * @param skip bytes of each stream that are known; infinite: the stream is not wanted any more
   * @param logBytes what the engine keeps of the log at least; infinite: what it may have dropped is of no use
   * @throws LogOverrunError when the log may have lost its beginning
   */
  async follow(skip: Record<OutputStream, number>, logBytes: number, onOutput: OnOutput): Promise<void> {
    const wanted = { stdout: Number.isFinite(skip.stdout), stderr: Number.isFinite(skip.stderr) };
    const isWhole = !Number.isFinite(logBytes) || (await this.#loggedBytes()) < logBytes;
    if (!isWhole) throw new LogOverrunError(logBytes);
    const left = { ...skip };
    const frames = new StreamFrames((stream, data) => {
      const known = Math.min(left[stream], data.length);
      left[stream] -= known;
      if (known < data.length) onOutput(stream, data.subarray(known));
    });
    const log = await this.#whileUp(this.#container.logs({ follow: true, ...wanted }));
    await this.#read(log as Readable, frames);
  }

  /** What the container's log takes on disk now, at most. */
  async #loggedBytes(): Promise<number> {
    let logged = 0;
    const count = (lengthBytes: number): void => {
      logged += lengthBytes + LOG_ENTRY_BYTES;
    };
    const log = await this.#whileUp(this.#storedLog());
    await this.#read(log, new StreamFrames(() => {}, count));
    return logged;
  }

  /** The log as it is now, as a stream: the client's own request would hold all of it in memory. */
  #storedLog(): Promise<Readable> {
    const request = {
      path: `/containers/${this.name}/logs?`,
      method: 'GET',
      isStream: true,
      statusCodes: { 200: true, 404: 'no such container', 500: 'server error' },
      options: { stdout: true, stderr: true },
    };
    return new Promise((resolve, reject) => {
      this.#engine.docker.modem.dial(request, (error, log) => {
        if (error) reject(error);
        else resolve(log as Readable);
      });
    });
  }

  /** Waits for the end of the container. */
  async exit(): Promise<ContainerExit> {
    await this.#whileUp(this.#container.wait());
    const { State } = await this.#whileUp(this.#container.inspect());
    const runMs = Math.max(0, Date.parse(State.FinishedAt) - Date.parse(State.StartedAt));
    return { exitCode: State.ExitCode, oomKilled: State.OOMKilled, runMs };
  }

  async state(): Promise<ContainerState> {
    try {
      const { Id, State } = await this.#whileUp(this.#container.inspect());
      this.#id = Id;
      if (State.Status === 'created') return { kind: 'created' };
      return { kind: State.Running ? 'running' : 'exited', startedAtMs: Date.parse(State.StartedAt) };
    } catch (error) {
      if (engineStatus(error) === 404) return { kind: 'missing' };
      throw error;
    }
  }

  /** What it has used so far, as the engine tells it while it runs. */
  async usage(): Promise<ContainerUsage> {
    const asked = this.#container.stats({ stream: false, 'one-shot': true });
    const { cpu_stats, memory_stats } = await this.#whileUp(asked);
    return {
      cpuMs: (cpu_stats.cpu_usage?.total_usage ?? 0) / 1e6,
      maxMemoryBytes: memory_stats.max_usage ?? memory_stats.usage ?? 0,
      oomKills: 0,
    };
  }

  /** Sends a signal to the container's program, SIGKILL to everything in it. Does nothing when it has ended. */
  async signal(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    try {
      await this.#whileUp(this.#container.kill({ signal }));
    } catch (error) {
      if (![404, 409].includes(engineStatus(error) ?? 0)) throw error;
    }
  }

  /** Ends the container, if it runs, and removes it with its volumes. Does nothing when there is none. */
  async remove(): Promise<void> {
    try {
      await this.#whileUp(this.#container.remove({ force: true, v: true }));
    } catch (error) {
      // 409: it is being removed already.
      if (![404, 409].includes(engineStatus(error) ?? 0)) throw error;
    }
  }

  get #container(): Docker.Container {
    return this.#engine.docker.getContainer(this.name);
  }

  async #read(stream: Readable, frames: StreamFrames): Promise<void> {
    const { lost } = this.#engine;
    const onLost = (): void => stream.destroy(lost.reason);
    lost.addEventListener('abort', onLost, { once: true });
    try {
      for await (const chunk of stream) frames.add(chunk as Buffer);
      lost.throwIfAborted();
    } finally {
      lost.removeEventListener('abort', onLost);
      stream.destroy();
    }
  }

  #whileUp<T>(answer: Promise<T>, signal?: AbortSignal): Promise<T> {
    return whileUp(this.#engine, answer, signal);
  }
}
