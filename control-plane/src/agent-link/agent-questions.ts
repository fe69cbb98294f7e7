import { randomUUID } from 'node:crypto';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { HarrierError } from '@harrier/shared';
import {
  type AgentMessage,
  type ClearGpuSchema,
  type ResolveSchema,
  type ServerMessage,
  ServerMessageSchema,
} from '@harrier/shared/gen/link';
import type { AgentRegistry } from './agent-registry.ts';

type Init<Schema extends typeof ResolveSchema | typeof ClearGpuSchema> = Exclude<
  MessageInitShape<Schema>,
  { $typeName: string }
>;

/** What an agent can be asked; each asking gets an id of its own. */
export type AgentQuestion =
  | { case: 'resolve'; value: Omit<Init<typeof ResolveSchema>, 'id'> }
  | { case: 'clearGpu'; value: Omit<Init<typeof ClearGpuSchema>, 'id'> };

/** What it answers. */
export type AgentAnswer = Extract<AgentMessage['message'], { case: 'resolved' | 'gpuCleared' }>;

/** The answer to each question. */
export interface AnswerTo {
  resolve: Extract<AgentAnswer, { case: 'resolved' }>['value'];
  clearGpu: Extract<AgentAnswer, { case: 'gpuCleared' }>['value'];
}

/** Asks agents, wherever they are linked. */
export interface AgentAsker {
  /**
   * @throws HarrierError unavailable when its link is gone; the signal's reason when it is aborted
   */
  ask<Case extends AgentQuestion['case']>(
    agent: { id: string; tenantId: string },
    question: Extract<AgentQuestion, { case: Case }>,
    signal: AbortSignal,
  ): Promise<AnswerTo[Case]>;
}

interface Open {
  agentId: string;
  resolve: (answer: AgentAnswer) => void;
  reject: (error: Error) => void;
}

/** Questions to linked agents, each answered once: by the agent, by the end of its link, or by the asker's signal. */
export class AgentQuestions implements AgentAsker {
  readonly #registry: AgentRegistry;
  readonly #open = new Map<string, Open>();

  constructor(registry: AgentRegistry) {
    this.#registry = registry;
  }

  async ask<Case extends AgentQuestion['case']>(
    agent: { id: string },
    question: Extract<AgentQuestion, { case: Case }>,
    signal: AbortSignal,
  ): Promise<AnswerTo[Case]> {
    const answer = await this.askAny(agent.id, question, signal);
    if (answer.case !== ANSWERS[question.case]) throw new Error(`the agent answers ${question.case} by ${answer.case}`);
    return answer.value as AnswerTo[Case];
  }

  /** As `ask`, for a question that came from elsewhere. */
  async askAny(agentId: string, question: AgentQuestion, signal: AbortSignal): Promise<AgentAnswer> {
    signal.throwIfAborted();
    const id = randomUUID();
    const { promise, resolve, reject } = Promise.withResolvers<AgentAnswer>();
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    this.#open.set(id, { agentId, resolve, reject });
    try {
      if (!this.#registry.send(agentId, withId(question, id))) throw gone();
      return await promise;
    } finally {
      this.#open.delete(id);
      signal.removeEventListener('abort', abort);
    }
  }

  /** An answer that nobody waits for, or that another agent was asked for, changes nothing. */
  answered(agentId: string, answer: AgentAnswer): void {
    const open = this.#open.get(answer.value.id);
    if (open?.agentId === agentId) open.resolve(answer);
  }

  unlinked(agentId: string): void {
    for (const open of this.#open.values()) if (open.agentId === agentId) open.reject(gone());
  }
}

const ANSWERS: Readonly<Record<AgentQuestion['case'], AgentAnswer['case']>> = {
  resolve: 'resolved',
  clearGpu: 'gpuCleared',
};

/** Whether a message of an agent answers a question. */
export function isAnswer(message: AgentMessage['message']): message is AgentAnswer {
  return message.case === 'resolved' || message.case === 'gpuCleared';
}

/** The question as it is sent. */
export function withId(question: AgentQuestion, id: string): ServerMessage {
  if (question.case === 'resolve') {
    return create(ServerMessageSchema, { message: { case: 'resolve', value: { ...question.value, id } } });
  }
  return create(ServerMessageSchema, { message: { case: 'clearGpu', value: { ...question.value, id } } });
}

/** The question in a message; undefined: it holds none. */
export function questionIn({ message }: ServerMessage): AgentQuestion | undefined {
  if (message.case === 'resolve') {
    const { tenant, language, decidedLocks, environment } = message.value;
    return { case: 'resolve', value: { tenant, language, decidedLocks, ...(environment && { environment }) } };
  }
  if (message.case === 'clearGpu') return { case: 'clearGpu', value: { gpuUuid: message.value.gpuUuid } };
  return undefined;
}

function gone(): HarrierError {
  return new HarrierError('unavailable', 'the link of the agent that was asked is gone; try again');
}
