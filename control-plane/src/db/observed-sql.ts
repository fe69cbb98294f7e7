import type { Sql } from './sql.ts';

/** Follows the statements of one pool. */
export class StatementObserver {
  /** Statements without an answer yet. */
  active = 0;
  #onEnd: ((seconds: number, failed: boolean) => void) | undefined;

  /** @param listener told of the end of each statement from now on */
  onEnd(listener: (seconds: number, failed: boolean) => void): void {
    this.#onEnd = listener;
  }

  /** A statement begins. @returns to be called when it is answered; further calls change nothing */
  begin(): (failed: boolean) => void {
    const startMs = performance.now();
    let ended = false;
    this.active++;
    return (failed) => {
      if (ended) return;
      ended = true;
      this.active--;
      this.#onEnd?.((performance.now() - startMs) / 1000, failed);
    };
  }
}

/** What postgres.js 3.4.9 keeps of a statement: `handler` is called when it is run, and one of the others when it is answered. */
interface Query extends Promise<unknown> {
  handler: Handler;
  resolve: (result: unknown) => void;
  reject: (error: unknown) => void;
}
type Handler = ((query: Query) => unknown) & { debug?: unknown };

/** The same pool; each of its statements, and each transaction as a whole, is told to the observer. */
export function observedSql(sql: Sql, observer: StatementObserver): Sql {
  return new Proxy(sql, {
    apply(target, thisArg, args) {
      const made: unknown = Reflect.apply(target as (...given: unknown[]) => unknown, thisArg, args);
      if (isQuery(made)) observe(made, observer);
      return made;
    },
    get(target, property) {
      const value: unknown = Reflect.get(target, property);
      return property === 'begin' ? observedBegin(value as (...args: unknown[]) => Promise<unknown>, observer) : value;
    },
  });
}

function isQuery(made: unknown): made is Query {
  return made instanceof Promise && 'handler' in made && 'resolve' in made;
}

/** What is only a part of another statement is never run by itself. */
function observe(query: Query, observer: StatementObserver): void {
  const { handler } = query;
  const run: Handler = (started) => {
    const end = observer.begin();
    const { resolve, reject } = started;
    started.resolve = (result) => {
      end(false);
      resolve(result);
    };
    started.reject = (error) => {
      end(true);
      reject(error);
    };
    return handler(started);
  };
  run.debug = handler.debug;
  query.handler = run;
}

function observedBegin(begin: (...args: unknown[]) => Promise<unknown>, observer: StatementObserver) {
  return async (...args: unknown[]): Promise<unknown> => {
    const end = observer.begin();
    try {
      const result = await begin(...args);
      end(false);
      return result;
    } catch (error) {
      end(true);
      throw error;
    }
  };
}
