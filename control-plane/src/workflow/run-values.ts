import { Budget, ExpressionError, type Json } from './expression.ts';
import type { Run } from './run-state.ts';
import { type Lazy, ValueReading } from './value-reading.ts';

/** Reads the output of an execution that has ended, as JSON text; undefined: it is not kept any more. */
export type ReadOutput = (executionId: string) => Promise<string | undefined>;

/** Gathers what work of the run's tenant needs, and does it, when it may. */
export type Evaluator = <Result>(prepare: () => Promise<() => Result>) => Promise<Result>;

/** Outputs that a run keeps in memory; what falls out is read again. */
const MAX_TEXT_CHARS = 4 * 1024 * 1024;
/** Parsed values by the size of their texts: the largest list fits, since it is looked at for each of its items. */
const MAX_PARSED_CHARS = 16 * 1024 * 1024;

/** The values of a run: what its expressions see. */
export class RunValues {
  readonly #evaluate: Evaluator;
  readonly #source: ConstructorParameters<typeof ValueReading>[0];
  readonly #texts = new Kept<string, string>(MAX_TEXT_CHARS);
  readonly #parsed = new Kept<{ json: string }, Json>(MAX_PARSED_CHARS);

  /** @param given `about`: what expressions see as `run` */
  constructor(run: Run, given: { input: Json; about: Json; read: ReadOutput; evaluate: Evaluator }) {
    const { input, about, read, evaluate } = given;
    this.#evaluate = evaluate;
    this.#source = {
      ...{ run, input, about },
      textOf: async (executionId) => {
        const text = this.#texts.get(executionId) ?? (await read(executionId));
        if (text === undefined)
          throw new ExpressionError(`the output of execution ${executionId} is not kept any more`);
        this.keep(executionId, text);
        return text;
      },
      parsed: (stored) => {
        let value = this.#parsed.get(stored);
        if (value === undefined) {
          value = JSON.parse(stored.json) as Json;
          this.#parsed.add(stored, value, stored.json.length);
        }
        return value;
      },
    };
  }

  /** An execution has just ended with this: it is not read again. */
  keep(executionId: string, text: string): void {
    this.#texts.add(executionId, text, text.length);
  }

  /**
   * Makes something of values of the run, when it is the run's turn: only then they are parsed.
   * @param gather says which values. @throws ExpressionError; what the work throws
   */
  async evaluated<Values, Result>(
    gather: (reading: ValueReading) => Lazy<Values> | Promise<Lazy<Values>>,
    work: (values: Values, budget: Budget) => Result,
  ): Promise<Result> {
    return await this.#evaluate(async () => {
      const values = await gather(new ValueReading(this.#source));
      return () => work(values(), new Budget());
    });
  }
}

/** The latest of what was looked at, by the size of their texts. */
class Kept<Key, Value> {
  readonly #values = new Map<Key, { value: Value; chars: number }>();
  readonly #maxChars: number;
  #chars = 0;

  constructor(maxChars: number) {
    this.#maxChars = maxChars;
  }

  get(key: Key): Value | undefined {
    return this.#values.get(key)?.value;
  }

  add(key: Key, value: Value, chars: number): void {
    if (this.#values.has(key) || chars > this.#maxChars) return;
    this.#values.set(key, { value, chars });
    this.#chars += chars;
    for (const [oldest, kept] of this.#values) {
      if (this.#chars <= this.#maxChars) break;
      this.#values.delete(oldest);
      this.#chars -= kept.chars;
    }
  }
}
