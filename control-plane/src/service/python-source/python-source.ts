import { Worker } from 'node:worker_threads';
import { HarrierError } from '@harrier/shared';
import type { SourceFindings } from './worker.ts';

/** The parser takes 30 MiB, which a control plane that registers nothing does not need. */
const IDLE_MS = 2_000;
/** 4 MiB of source take about 3 s; one that takes longer is not worth the wait. */
const DEADLINE_MS = 30_000;

interface Question {
  resolve: (findings: SourceFindings) => void;
  reject: (error: Error) => void;
}

/**
 * Parses Python source in a thread of its own, which ends when nobody asks: a large source holds nobody up, and what the
 * parser takes is given back.
 */
export class PythonSource {
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;
  #count = 0;
  readonly #questions = new Map<number, Question>();

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

  /** Safe to call twice. */
  async stop(): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    if (worker !== undefined) await this.#fail(worker, new Error('the control plane stops'));
  }

  async #ask(source: string): Promise<SourceFindings> {
    clearTimeout(this.#idle);
    const id = this.#count++;
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const deadline = setTimeout(
      () => void this.#fail(worker, new Error('the source took too long to parse')),
      DEADLINE_MS,
    );
    try {
      return await new Promise<SourceFindings>((resolve, reject) => {
        this.#questions.set(id, { resolve, reject });
        worker.postMessage({ id, source });
      });
    } finally {
      clearTimeout(deadline);
      this.#questions.delete(id);
      if (this.#questions.size === 0 && this.#worker !== undefined) {
        this.#idle = setTimeout(() => void this.stop(), IDLE_MS);
        this.#idle.unref();
      }
    }
  }

  #start(): Worker {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: 256 },
      // What the process was started with is not for a thread of it: a module to import would be imported once more.
      execArgv: [],
    });
    worker.unref();
    worker.on('message', (findings: SourceFindings) => this.#questions.get(findings.id)?.resolve(findings));
    worker.on('error', (error) => void this.#fail(worker, error instanceof Error ? error : new Error(String(error))));
    return worker;
  }

  async #fail(worker: Worker, error: Error): Promise<void> {
    if (this.#worker === worker) this.#worker = undefined;
    for (const { reject } of this.#questions.values()) reject(error);
    await worker.terminate();
  }
}

function shown(names: readonly string[]): string {
  const first = names.slice(0, 10).join(', ');
  return names.length > 10 ? `${first} and ${names.length - 10} more` : first;
}
