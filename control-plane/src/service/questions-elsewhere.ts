import { randomUUID } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import { AgentMessageSchema, ServerMessageSchema } from '@harrier/shared/gen/link';
import {
  type AgentAsker,
  type AgentQuestion,
  type AgentQuestions,
  type AnswerTo,
  questionIn,
  withId,
} from '../agent-link/agent-questions.ts';
import {
  type AgentQuestionRow,
  answerAgentQuestion,
  deleteAgentQuestion,
  insertAgentQuestion,
  listAgentQuestions,
  readAgentQuestion,
} from '../db/queries/agent-questions.ts';
import type { Sql } from '../db/sql.ts';
import type { BusMessage } from '../replica/bus-message.ts';
import type { BusTarget } from '../replica/replica-bus.ts';
import { ChangeSignal } from './change-signal.ts';

/** A resolver that takes longer has hung; a caller who has gone is told to the other replica before. */
const TTL_MS = 15 * 60_000;
/** How often both sides look for what they were not told. */
const LOOK_MS = 2_000;

export interface QuestionsElsewhereOptions {
  sql: Sql;
  /** This replica. */
  replicaId: string;
  /** To agents that are linked here. */
  questions: Pick<AgentQuestions, 'askAny'>;
  send: (to: BusTarget, message: BusMessage) => void;
  /** Whether there is another replica. */
  alone: () => boolean;
  logger: Logger;
}

/**
 * Questions to agents that are linked to other replicas, and theirs to agents that are linked here. They and their answers
 * are rows, since both may be larger than a message between replicas.
 */
export class QuestionsElsewhere implements AgentAsker {
  readonly #options: QuestionsElsewhereOptions;
  /** Told when the answer to a question of this replica may be there. */
  readonly #open = new Map<string, ChangeSignal>();
  /** Questions of other replicas that are being answered. */
  readonly #answering = new Map<string, AbortController>();
  readonly #timer: NodeJS.Timeout;

  constructor(options: QuestionsElsewhereOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      if (!options.alone()) this.look();
    }, LOOK_MS);
    this.#timer.unref();
  }

  /**
   * As `AgentQuestions.ask`, for an agent that is linked to another replica.
   * @throws HarrierError unavailable when its link or its replica is gone; the signal's reason when it is aborted
   */
  async ask<Case extends AgentQuestion['case']>(
    agent: { id: string; tenantId: string },
    asked: Extract<AgentQuestion, { case: Case }>,
    signal: AbortSignal,
  ): Promise<AnswerTo[Case]> {
    signal.throwIfAborted();
    const { sql, replicaId, send } = this.#options;
    const id = randomUUID();
    // Which id the agent is asked by is for the replica that asks it.
    const question = toBinary(ServerMessageSchema, withId(asked, ''));
    const changed = new ChangeSignal();
    this.#open.set(id, changed);
    let asking: string | undefined;
    try {
      const row = { id, tenantId: agent.tenantId, agentId: agent.id, askerId: replicaId, question, ttlMs: TTL_MS };
      asking = await insertAgentQuestion(sql, row);
      if (asking === undefined) throw gone('the agent is not linked any more; try again');
      send(asking, { type: 'asked', id });
      while (true) {
        // What is asked for before it is looked at cannot be missed.
        const wake = changed.wait(signal, LOOK_MS);
        wake.catch(() => undefined);
        const state = await readAgentQuestion(sql, id);
        if (state === undefined) throw gone(`the agent has not answered within ${TTL_MS / 60_000} minutes`);
        if (state.answer !== null) return fromBinary(AgentMessageSchema, state.answer).message.value as AnswerTo[Case];
        if (state.error !== null) throw gone(state.error);
        if (state.is_moved) throw gone('the agent has left the control plane that was asked; try again');
        await wake;
      }
    } finally {
      this.#open.delete(id);
      if (asking !== undefined) {
        if (signal.aborted) send(asking, { type: 'withdrawn', id });
        // One that stays expires.
        deleteAgentQuestion(sql, id).catch(() => undefined);
      }
    }
  }

  /** The answer to a question of this replica is there. */
  answered(id: string): void {
    this.#open.get(id)?.notify();
  }

  /** Nobody waits for an answer any more. */
  withdrawn(id: string): void {
    this.#answering.get(id)?.abort(gone('nobody waits for the answer any more'));
  }

  /** Answers what other replicas have asked. */
  look(): void {
    this.#look().catch((error: unknown) => {
      this.#options.logger.warn({ reason: messageOf(error) }, 'questions of other replicas could not be looked for');
    });
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const controller of this.#answering.values()) controller.abort(gone('the control plane stops; try again'));
  }

  async #look(): Promise<void> {
    for (const question of await listAgentQuestions(this.#options.sql, this.#options.replicaId)) {
      if (!this.#answering.has(question.id)) this.#start(question);
    }
  }

  #start(question: AgentQuestionRow): void {
    const { logger } = this.#options;
    const controller = new AbortController();
    this.#answering.set(question.id, controller);
    const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(Math.ceil(question.left_ms))]);
    this.#answer(question, signal)
      .catch((error: unknown) => logger.warn({ reason: messageOf(error) }, 'a question could not be answered'))
      .finally(() => this.#answering.delete(question.id));
  }

  async #answer({ id, agent_id: agentId, asker_id: asker, question }: AgentQuestionRow, signal: AbortSignal) {
    const { sql, questions, send } = this.#options;
    const asked = questionIn(fromBinary(ServerMessageSchema, question));
    // A newer replica may ask more than this one knows.
    if (asked === undefined) return;
    const answer = await questions.askAny(agentId, asked, signal).then(
      (message) => ({ answer: toBinary(AgentMessageSchema, create(AgentMessageSchema, { message })) }),
      (error: unknown) => ({ error: messageOf(error) }),
    );
    await answerAgentQuestion(sql, id, answer);
    send(asker, { type: 'answered', id });
  }
}

function gone(message: string): HarrierError {
  return new HarrierError('unavailable', message);
}
