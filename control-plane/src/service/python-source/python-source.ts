import { Worker } from 'node:worker_threads';
import { HarrierError } from '@harrier/shared';
import type { SourceFindings } from './worker.ts';

/** The parser takes 30 MiB, which a control plane that registers nothing does not need. */
const IDLE_MS = 2_000;
/** 4 MiB of source take about 3 s; one that takes longer is not worth the wait. */
const DEADLINE_MS = 30_000;

interface Question {
  worker: Worker;
  resolve: (findings: SourceFindings) => void;
  reject: (error: Error) => void;
}

/**
 * Parses Python source in a thread of its own, which ends when nobody asks: a large source does not hold the process up, and
 * what the parser takes is given back. One source at a time, each with the whole deadline: one that exceeds it, or breaks the
 * parser, takes the thread with it and no source beside it.
 */
export class PythonSource {
  readonly #deadlineMs: number;
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;
  #asking = 0;
  /** The end of the last one that was asked for. */
  #turn: Promise<unknown> = Promise.resolve();
  #question: Question | undefined;
  #stopped = false;

  constructor(deadlineMs = DEADLINE_MS) {
    this.#deadlineMs = deadlineMs;
  }

  /**
   * @param field path of the source in the request, for example `module.code`
   * @throws HarrierError invalid_argument: it is not Python, with the line, or does not define the handler
   */
  async check(source: string, handler: string, field: string): Promise<void> {
    const { fault, names, open } = await this.#ask(source);
    if (fault !== undefined) {
      throw new HarrierError('invalid_argument', `${field} is not Python near line ${fault.line}: ${fault.text}`, {
        field,
      });
    }
    if (open || names.includes(handler)) return;
    const defined = names.length === 0 ? 'it defines nothing' : `it defines ${shown(names)}`;
    throw new HarrierError('invalid_argument', `${field} has no function "${handler}"; ${defined}`, { field });
  }

  /** Sources that wait are not parsed any more. Safe to call twice. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#idle);
    await this.#end();
  }

  async #ask(source: string): Promise<SourceFindings> {
    clearTimeout(this.#idle);
    this.#asking++;
    const answer = this.#turn.then(() => this.#parse(source));
    this.#turn = answer.catch(() => undefined);
    try {
      return await answer;
    } finally {
      this.#asking--;
      if (this.#asking === 0 && this.#worker !== undefined) {
        this.#idle = setTimeout(() => void this.#end(), IDLE_MS);
        this.#idle.unref();
      }
    }
  }

  async #parse(source: string): Promise<SourceFindings> {
    if (this.#stopped) throw stopping();
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const { promise, resolve, reject } = Promise.withResolvers<SourceFindings>();
    this.#question = { worker, resolve, reject };
    const deadline = setTimeout(() => {
      const message = `the source took longer than ${this.#deadlineMs / 1000} s to parse`;
      void this.#fail(worker, new HarrierError('invalid_argument', message));
    }, this.#deadlineMs);
    worker.postMessage(source);
    try {
      return await promise;
    } finally {
      clearTimeout(deadline);
      this.#question = undefined;
    }
  }

  #start(): Worker {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: 256 },
      // What the process was started with is not for a thread of it: a module to import would be imported once more.
      execArgv: [],
    });
    worker.unref();
    worker.on('message', (findings: SourceFindings) => {
      if (this.#question?.worker === worker) this.#question.resolve(findings);
    });
    worker.on('error', (error) => void this.#fail(worker, error instanceof Error ? error : new Error(String(error))));
    return worker;
  }

  async #end(): Promise<void> {
    if (this.#worker !== undefined) await this.#fail(this.#worker, stopping());
  }

  async #fail(worker: Worker, error: Error): Promise<void> {
    if (this.#worker === worker) this.#worker = undefined;
    if (this.#question?.worker === worker) this.#question.reject(error);
    await worker.terminate();
  }
}

function stopping(): Error {
  return new Error('the control plane stops');
}

function shown(names: readonly string[]): string {
  const first = names.slice(0, 10).join(', ');
  return names.length > 10 ? `${first} and ${names.length - 10} more` : first;
}
