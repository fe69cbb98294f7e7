import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { HarrierError } from '@harrier/shared';
import { type Resolved, ServerMessageSchema } from '@harrier/shared/gen/link';
import type { Environment } from '@harrier/shared/gen/module';
import type { AgentRegistry } from './agent-registry.ts';

/** What is to be resolved. */
export interface AskedEnvironment {
  tenant: string;
  environment: Environment;
  language: string;
  decidedLocks?: Record<string, string>;
}

interface Question {
  agentId: string;
  resolve: (answer: Resolved) => void;
  reject: (error: Error) => void;
}

/** Questions to linked agents, each answered once: by the agent, by the end of its link, or by the asker's signal. */
export class AgentQuestions {
  readonly #registry: AgentRegistry;
  readonly #open = new Map<string, Question>();

  constructor(registry: AgentRegistry) {
    this.#registry = registry;
  }

  /**
   * Lets an agent resolve an environment without installing it.
   * @throws HarrierError unavailable when its link is gone; the signal's reason when it is aborted
   */
  async resolve(agentId: string, asked: AskedEnvironment, signal: AbortSignal): Promise<Resolved> {
    signal.throwIfAborted();
    const id = randomUUID();
    const { promise, resolve, reject } = Promise.withResolvers<Resolved>();
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    this.#open.set(id, { agentId, resolve, reject });
    try {
      const message = { case: 'resolve', value: { id, ...asked } } as const;
      if (!this.#registry.send(agentId, create(ServerMessageSchema, { message }))) throw gone();
      return await promise;
    } finally {
      this.#open.delete(id);
      signal.removeEventListener('abort', abort);
    }
  }

  /** An answer that nobody waits for, or that another agent was asked for, changes nothing. */
  answered(agentId: string, answer: Resolved): void {
    const question = this.#open.get(answer.id);
    if (question?.agentId === agentId) question.resolve(answer);
  }

  unlinked(agentId: string): void {
    for (const question of this.#open.values()) if (question.agentId === agentId) question.reject(gone());
  }
}

function gone(): HarrierError {
  return new HarrierError('unavailable', 'the link of the agent that was asked is gone; try again');
}
