import { randomUUID } from 'node:crypto';
import { Code, ConnectError } from '@connectrpc/connect';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Clients } from '../test/support/clients.ts';
import { execute, nameOf } from '../test/support/executions.ts';
import { code } from '../test/support/requests.ts';

const ADD_ONE = 'def handler(input):\n    return {"n": input["n"] + 1}\n';
const TRY_AGAIN_MS = 50;
const MAX_TRIES = 200;
const CONNECTIONS = 8;

export interface PacedCall {
  startMs: number;
  /** Until its answer, with all tries. */
  ms: number;
  /** Undefined when it was answered rightly. */
  failure: string | undefined;
}

/** Calls at a steady rate, whatever becomes of those before, each with an idempotency key and made again when it is told so. */
export class PacedCalls {
  readonly done: PacedCall[] = [];
  readonly #url: string;
  readonly #apiKey: string;
  readonly #clients: Clients[];
  readonly #retired: Clients[] = [];
  readonly #retried: readonly Code[];
  readonly #timer: NodeJS.Timeout;
  readonly #open = new Set<Promise<void>>();
  readonly #run = randomUUID();
  #begun = 0;

  /** @param retried what is taken for "try again" */
  constructor(url: string, apiKey: string, perSecond: number, retried: readonly Code[]) {
    this.#retried = retried;
    this.#url = url;
    this.#apiKey = apiKey;
    this.#clients = Array.from({ length: CONNECTIONS }, () => new Clients(url, apiKey));
    const startMs = performance.now();
    // A turn that comes late makes the calls that it has missed.
    this.#timer = setInterval(() => {
      while (this.#begun < ((performance.now() - startMs) / 1000) * perSecond) this.#begin(this.#begun++);
    }, 1000 / perSecond);
  }

  /** Ends when every call is answered or has failed. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#open);
    for (const clients of [...this.#clients, ...this.#retired]) clients.close();
  }

  #begin(n: number): void {
    const call = this.#call(n).finally(() => this.#open.delete(call));
    this.#open.add(call);
  }

  async #call(n: number): Promise<void> {
    const startMs = performance.now();
    const request = { ...code(ADD_ONE, { n }), idempotencyKey: `${this.#run} ${n}` };
    let failure: string | undefined;
    for (let tries = 1; tries <= MAX_TRIES; tries++) {
      const place = n % CONNECTIONS;
      const clients = this.#clients[place] as Clients;
      try {
        const { state, outputJson } = await execute(clients.executions, request);
        failure =
          state === State.SUCCEEDED && outputJson === `{"n":${n + 1}}` ? undefined : `${nameOf(state)} ${outputJson}`;
        break;
      } catch (error) {
        const { code: status, message } = ConnectError.from(error);
        failure = `${Code[status]}: ${message}`;
        if (!this.#retried.includes(status)) break;
        if (this.#clients[place] === clients) {
          // Others may still be answered on it.
          this.#retired.push(clients);
          this.#clients[place] = new Clients(this.#url, this.#apiKey);
        }
        await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
      }
    }
    this.done.push({ startMs, ms: performance.now() - startMs, failure });
  }
}
