import { Code, ConnectError } from '@connectrpc/connect';
import { type Execution, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import type { Clients } from '../../test/support/clients.ts';
import type { Answer, StoredChunk } from '../evidence.ts';
import type { ExecutionPlan } from '../execution-plan.ts';
import { untilAnswered } from './persistent-call.ts';
import { type Request, requestOf, type Surroundings } from './request.ts';

export interface CallerOptions extends Surroundings {
  /** Of a replica; another one each time, as a load balancer does. */
  clients: () => Clients;
}

/** A caller as it should be: it sends an idempotency key, and asks again until it is answered. */
export class Caller {
  readonly #options: CallerOptions;

  constructor(options: CallerOptions) {
    this.#options = options;
  }

  /** Asks in the planned way. @returns what it was told; undefined when the signal came first */
  async ask(plan: ExecutionPlan, signal: AbortSignal): Promise<Answer | undefined> {
    const request = requestOf(plan, this.#options);
    const answer: Answer = { ids: [], state: undefined, outputJson: undefined, followed: undefined };
    try {
      if (plan.way === 'execute') await this.#execute(request, answer, signal);
      else await this.#create(request, answer, signal);
      if (plan.way === 'follow') await this.#follow(answer, signal);
    } catch (error) {
      if (!signal.aborted) throw new Error(`${plan.key} was refused: ${String(error)}`, { cause: error });
    }
    return answer.ids.length === 0 ? undefined : answer;
  }

  async #create(request: Request, answer: Answer, signal: AbortSignal): Promise<void> {
    const { execution } = await this.#try(signal, (clients, options) =>
      clients.executions.createExecution(request, options),
    );
    note(answer, execution);
  }

  async #execute(request: Request, answer: Answer, signal: AbortSignal): Promise<void> {
    // The id comes with the headers, before the end: it counts although the answer may get lost.
    const onHeader = (headers: Headers) => {
      const id = headers.get('harrier-execution-id');
      if (id !== null && !answer.ids.includes(id)) answer.ids.push(id);
    };
    const { execution } = await this.#try(signal, (clients, options) =>
      clients.executions.execute(request as Parameters<Clients['executions']['execute']>[0], { ...options, onHeader }),
    );
    note(answer, execution);
    answer.state = execution?.state;
    answer.outputJson = execution?.outputJson;
  }

  /** Watches from where it was broken off, until the result. */
  async #follow(answer: Answer, signal: AbortSignal): Promise<void> {
    const [id = ''] = answer.ids;
    const followed: StoredChunk[] = [];
    answer.followed = followed;
    const position = { attempt: 0, stdoutOffset: 0n, stderrOffset: 0n };
    await this.#try(signal, async (clients, options) => {
      for await (const { event } of clients.executions.watchExecution({ id, ...position }, options)) {
        if (event.case === 'log') {
          const { attempt, offset, data, stream } = event.value;
          if (attempt !== position.attempt) Object.assign(position, { attempt, stdoutOffset: 0n, stderrOffset: 0n });
          const isStdout = stream === Stream.STDOUT;
          position[isStdout ? 'stdoutOffset' : 'stderrOffset'] = offset + BigInt(data.length);
          const name = isStdout ? 'stdout' : 'stderr';
          followed.push({ attempt, stream: name, offset: Number(offset), data: Buffer.from(data) });
        }
        if (event.case === 'result') {
          answer.state = event.value.state;
          answer.outputJson = event.value.outputJson;
          return;
        }
      }
      throw new ConnectError('the stream ended without a result', Code.Unavailable);
    });
  }

  async #try<T>(
    signal: AbortSignal,
    call: (clients: Clients, options: { signal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    return await untilAnswered(this.#options.clients, signal, call);
  }
}

function note(answer: Answer, execution: Execution | undefined): void {
  if (execution !== undefined && !answer.ids.includes(execution.id)) answer.ids.push(execution.id);
}
