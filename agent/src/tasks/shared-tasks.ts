import { untilAborted } from './until-aborted.ts';

/** What a shared task tells to everybody who waits for it. */
export interface TaskEvents {
  /** Bytes for the execution's log (standard error). */
  onOutput(data: Uint8Array): void;
  /** @param percent 0 to 100 */
  onProgress(percent: number, step: string): void;
}

/** Bytes of a task's output that are kept for those who come late. */
const MAX_KEPT_BYTES = 4 * 1024 * 1024;

interface Task<Result> {
  promise: Promise<Result>;
  output: Uint8Array[];
  outputBytes: number;
  progress: { percent: number; step: string } | undefined;
  followers: Set<TaskEvents>;
  stop: AbortController;
}

/**
 * Tasks of which one runs for each key, however many ask for it. Who comes late is told from the start; the task is stopped
 * when nobody waits for it any more.
 */
export class SharedTasks<Result> {
  readonly #tasks = new Map<string, Task<Result>>();
  /** Tasks that were told to stop: the next one of the key waits for their end, so that two never write at once. */
  readonly #stopping = new Map<string, Promise<unknown>>();

  /**
   * Waits for the task of the key, and starts it when there is none.
   * @throws what the task throws; the signal's reason when it is aborted
   */
  async run(
    key: string,
    events: TaskEvents,
    signal: AbortSignal,
    start: (events: TaskEvents, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    signal.throwIfAborted();
    let task = this.#tasks.get(key);
    if (task === undefined) task = this.#start(key, start);
    else {
      for (const data of task.output) events.onOutput(data);
      if (task.progress !== undefined) events.onProgress(task.progress.percent, task.progress.step);
    }
    const { followers, promise, stop } = task;
    // An object of its own: two callers may come with the same events.
    const follower: TaskEvents = {
      onOutput: (data) => events.onOutput(data),
      onProgress: (percent, step) => events.onProgress(percent, step),
    };
    followers.add(follower);
    try {
      return await untilAborted(promise, signal);
    } finally {
      followers.delete(follower);
      if (followers.size === 0) {
        // The next one starts anew instead of joining a task that is being stopped.
        if (this.#tasks.get(key) === task) {
          this.#tasks.delete(key);
          this.#leave(key, promise);
        }
        stop.abort(new Error('nobody waits for it any more'));
      }
    }
  }

  #leave(key: string, promise: Promise<Result>): void {
    const ended = promise.then(
      () => undefined,
      () => undefined,
    );
    this.#stopping.set(key, ended);
    void ended.then(() => {
      if (this.#stopping.get(key) === ended) this.#stopping.delete(key);
    });
  }

  #start(key: string, start: (events: TaskEvents, signal: AbortSignal) => Promise<Result>): Task<Result> {
    const task: Task<Result> = {
      promise: undefined as never,
      output: [],
      outputBytes: 0,
      progress: undefined,
      followers: new Set(),
      stop: new AbortController(),
    };
    const events: TaskEvents = {
      onOutput: (data) => {
        if (task.outputBytes + data.length <= MAX_KEPT_BYTES) {
          task.output.push(data);
          task.outputBytes += data.length;
        }
        for (const follower of task.followers) follower.onOutput(data);
      },
      onProgress: (percent, step) => {
        task.progress = { percent, step };
        for (const follower of task.followers) follower.onProgress(percent, step);
      },
    };
    this.#tasks.set(key, task);
    const before = this.#stopping.get(key);
    const run = async (): Promise<Result> => {
      await before;
      task.stop.signal.throwIfAborted();
      return await start(events, task.stop.signal);
    };
    task.promise = run().finally(() => {
      if (this.#tasks.get(key) === task) this.#tasks.delete(key);
    });
    // Whoever waits sees it; when nobody does any more there is nobody to tell.
    task.promise.catch(() => undefined);
    return task;
  }
}
