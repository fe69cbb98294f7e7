import { Code, ConnectError } from '@connectrpc/connect';
import {
  WorkflowLogEntry_Level as Level,
  WorkflowRunNode_State as NodeState,
  type WorkflowRun,
} from '@harrier/shared/gen/workflow';
import type { LogLine, RunAnswer } from '../evidence.ts';
import { approvalOf } from '../expected.ts';
import type { WorkflowPlan } from '../workflow-plan.ts';
import { Witness } from '../world/witness.ts';
import type { CallerOptions } from './caller.ts';
import { definitionOf, inputOf } from './definition.ts';
import { untilAnswered } from './persistent-call.ts';

const LOOK_MS = 200;

/** A caller of workflows as it should be: it sends an idempotency key, asks again until it is answered, and approves. */
export class RunCaller {
  readonly #options: CallerOptions;

  constructor(options: CallerOptions) {
    this.#options = options;
  }

  /** Registers the workflow, runs it, and says what its signals wait for. @returns undefined when the signal came first */
  async ask(plan: WorkflowPlan, signal: AbortSignal): Promise<RunAnswer | undefined> {
    const answer: RunAnswer = {
      ids: [],
      state: undefined,
      outputJson: undefined,
      followed: undefined,
      approvedAtMs: [],
    };
    try {
      await this.#run(plan, answer, signal);
      const signals = plan.nodes.filter(({ kind }) => kind === 'signal');
      await Promise.all([
        plan.way === 'follow' ? this.#follow(answer, signal) : undefined,
        ...signals.map(({ id }) => this.#approve(plan, id, answer, signal)),
      ]);
    } catch (error) {
      if (!signal.aborted) throw new Error(`${plan.key} was refused: ${String(error)}`, { cause: error });
    }
    return answer.ids.length === 0 ? undefined : answer;
  }

  async #run(plan: WorkflowPlan, answer: RunAnswer, signal: AbortSignal): Promise<void> {
    const { clients, ...surroundings } = this.#options;
    const workflow = definitionOf(plan, surroundings);
    await untilAnswered(clients, signal, ({ workflows }, options) => workflows.createWorkflow({ workflow }, options));
    const inputForm = { case: 'inputJson' as const, value: JSON.stringify(inputOf(plan, surroundings)) };
    const { run } = await untilAnswered(clients, signal, ({ workflows }, options) =>
      workflows.runWorkflow({ name: plan.key, inputForm, idempotencyKey: plan.key }, options),
    );
    if (run !== undefined) answer.ids.push(run.id);
  }

  /** Says it when the node waits for it, and again unless the node has heard it: an answer may have been lost. */
  async #approve(plan: WorkflowPlan, path: string, answer: RunAnswer, signal: AbortSignal): Promise<void> {
    const { clients } = this.#options;
    const [id = ''] = answer.ids;
    while (true) {
      const { run } = await untilAnswered(clients, signal, ({ workflows }, options) =>
        workflows.getWorkflowRun({ id }, options),
      );
      const state = run?.nodes.find((node) => node.path === path)?.state;
      if (run?.endTime !== undefined || state === NodeState.SUCCEEDED) return;
      if (state === NodeState.WAITING) {
        answer.approvedAtMs.push(Witness.nowMs());
        const payloadJson = JSON.stringify(approvalOf(plan));
        await untilAnswered(clients, signal, ({ workflows }, options) =>
          workflows.signalWorkflowRun({ id, path, payloadJson }, options).catch((error: unknown) => {
            if (ConnectError.from(error).code !== Code.FailedPrecondition) throw error;
          }),
        );
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** Watches from where it was broken off, until the result. */
  async #follow(answer: RunAnswer, signal: AbortSignal): Promise<void> {
    const { clients } = this.#options;
    const [id = ''] = answer.ids;
    const followed: LogLine[] = [];
    answer.followed = followed;
    const result = await untilAnswered(clients, signal, async ({ workflows }, options): Promise<WorkflowRun> => {
      const afterSequence = BigInt(followed.at(-1)?.sequence ?? 0);
      const watch = { id, afterSequence, minLevel: Level.DEBUG };
      for await (const { event } of workflows.watchWorkflowRun(watch, options)) {
        if (event.case === 'log') {
          followed.push({ sequence: Number(event.value.sequence), message: event.value.message });
        }
        if (event.case === 'result') return event.value;
      }
      throw new ConnectError('the stream ended without a result', Code.Unavailable);
    });
    answer.state = result.state;
    answer.outputJson = result.outputJson;
  }
}
