import { create } from '@bufbuild/protobuf';
import { type LabelSelector, messageOf, parseLabelSelector } from '@harrier/shared';
import type { Resolved } from '@harrier/shared/gen/link';
import {
  type ValidateModuleResponse_AgentAnswer as AgentAnswer,
  ValidateModuleResponse_AgentAnswerSchema as AgentAnswerSchema,
  EnvironmentSchema,
  type Module,
  type ValidateModuleResponse,
  ValidateModuleResponseSchema,
} from '@harrier/shared/gen/module';
import type { AgentAsker, AgentQuestion } from '../agent-link/agent-questions.ts';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import type { Candidate } from '../agent-link/candidate.ts';
import { lackOf, selects } from '../scheduler/constraint.ts';
import type { ModuleService } from './module-service.ts';
import { supportNeeded } from './resolved-execution.ts';

const MAX_AGENTS = 100;

type AskedEnvironment = Extract<AgentQuestion, { case: 'resolve' }>['value'];

export interface ModuleValidationOptions {
  modules: Pick<ModuleService, 'check'>;
  registry: AgentRegistry;
  /** Asks an agent that is linked to this replica. */
  here: AgentAsker;
  /** Asks one that is linked to another replica. */
  there: AgentAsker;
  /** Agents that are linked to other replicas. */
  elsewhere: (tenantId: string) => Promise<Candidate[]>;
}

/** Says of a module what a first call would find out. */
export class ModuleValidation {
  readonly #options: ModuleValidationOptions;

  constructor(options: ModuleValidationOptions) {
    this.#options = options;
  }

  /** @throws HarrierError what registering it would throw; the signal's reason when it is aborted */
  async validate(tenantId: string, module: Module, signal: AbortSignal): Promise<ValidateModuleResponse> {
    const { modules, registry } = this.#options;
    await modules.check(tenantId, module);
    const environment = module.environment ?? create(EnvironmentSchema, { kind: { case: 'inline', value: {} } });
    const needed = supportNeeded(environment, module.language);
    const selector: LabelSelector = parseLabelSelector(module.agentSelector, 'module.agent_selector');
    const elsewhere = (await this.#options.elsewhere(tenantId)).filter(({ id }) => registry.get(id) === undefined);
    const agents = [...registry.candidates(), ...elsewhere]
      .filter((agent) => agent.tenantId === tenantId && selects([selector], agent))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .slice(0, MAX_AGENTS);
    const response = create(ValidateModuleResponseSchema);
    const answers = agents.map((agent) => ({ agent, answer: answerOf(agent, lackOf(needed, agent)) }));
    response.agents = answers.map(({ answer }) => answer);
    const able = answers.filter(({ answer }) => answer.reason === '');
    if (environment.kind.case === 'inline') {
      for (const { answer } of able) answer.held = true;
      return response;
    }
    const asked = { tenant: tenantId, environment, language: module.language || 'python' };
    await this.#ask(asked, able, response, signal);
    return response;
  }

  /**
   * The first agent that answers resolves, if there is one that is linked here; the others say whether they have what it has
   * found, or what they find for another platform.
   */
  async #ask(
    asked: AskedEnvironment,
    able: readonly AskedAgent[],
    response: ValidateModuleResponse,
    signal: AbortSignal,
  ): Promise<void> {
    const others = able.toSorted((a, b) => Number(this.#isElsewhere(a)) - Number(this.#isElsewhere(b)));
    let failure: unknown;
    for (let first = others.shift(); first !== undefined; first = others.shift()) {
      try {
        const found = await this.#resolve(first, asked, signal);
        if (found.error !== undefined) {
          response.error = found.error;
          return;
        }
        response.lock = found.lock;
        response.sizeBytes = found.sizeBytes;
        first.answer.held = found.held;
        const locked = { ...asked, decidedLocks: { [found.platform]: found.lock } };
        await Promise.all(others.map((other) => this.#compare(other, locked, signal)));
        return;
      } catch (error) {
        signal.throwIfAborted();
        first.answer.reason = messageOf(error);
        failure = error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  async #compare({ agent, answer }: AskedAgent, locked: AskedEnvironment, signal: AbortSignal): Promise<void> {
    try {
      const { held, error } = await this.#resolve({ agent }, locked, signal);
      answer.held = held;
      answer.reason = error?.message ?? '';
    } catch (error) {
      signal.throwIfAborted();
      answer.reason = messageOf(error);
    }
  }

  #resolve(to: Pick<AskedAgent, 'agent'>, asked: AskedEnvironment, signal: AbortSignal): Promise<Resolved> {
    const { here, there } = this.#options;
    return (this.#isElsewhere(to) ? there : here).ask(to.agent, { case: 'resolve', value: asked }, signal);
  }

  #isElsewhere({ agent }: Pick<AskedAgent, 'agent'>): boolean {
    return this.#options.registry.get(agent.id) === undefined;
  }
}

interface AskedAgent {
  agent: Candidate;
  answer: AgentAnswer;
}

function answerOf(agent: Pick<Candidate, 'id' | 'name'>, reason: string | undefined): AgentAnswer {
  return create(AgentAnswerSchema, { agentId: agent.id, name: agent.name, reason: reason ?? '' });
}
