import { create } from '@bufbuild/protobuf';
import { type LabelSelector, messageOf, parseLabelSelector } from '@harrier/shared';
import {
  type ValidateModuleResponse_AgentAnswer as AgentAnswer,
  ValidateModuleResponse_AgentAnswerSchema as AgentAnswerSchema,
  type Environment,
  EnvironmentSchema,
  type Module,
  type ValidateModuleResponse,
  ValidateModuleResponseSchema,
} from '@harrier/shared/gen/module';
import type { AgentQuestions } from '../agent-link/agent-questions.ts';
import type { AgentRegistry, LinkedAgent } from '../agent-link/agent-registry.ts';
import type { Candidate } from '../agent-link/candidate.ts';
import { lackOf, selects } from '../scheduler/place.ts';
import type { ModuleService } from './module-service.ts';
import { supportNeeded } from './resolved-execution.ts';

const MAX_AGENTS = 100;
const NOT_ASKED = 'not asked: it is linked to another control plane of this database; ask that one too';

export interface ModuleValidationOptions {
  modules: Pick<ModuleService, 'check'>;
  registry: AgentRegistry;
  questions: AgentQuestions;
  /** Agents that are linked to other replicas: they are not asked. */
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
    const agents = [...registry.candidates()]
      .filter((agent) => agent.tenantId === tenantId && selects([selector], agent))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .slice(0, MAX_AGENTS);
    const response = create(ValidateModuleResponseSchema);
    const answers = agents.map((agent) => ({ agent, answer: answerOf(agent, lackOf(needed, agent)) }));
    const notAsked = (await this.#options.elsewhere(tenantId))
      .filter((agent) => selects([selector], agent))
      .map((agent) => answerOf(agent, lackOf(needed, agent) ?? NOT_ASKED));
    response.agents = [...answers.map(({ answer }) => answer), ...notAsked].slice(0, MAX_AGENTS);
    const able = answers.filter(({ answer }) => answer.reason === '');
    if (environment.kind.case === 'inline') {
      for (const { answer } of able) answer.held = true;
      return response;
    }
    const asked = { tenant: tenantId, environment, language: module.language || 'python' };
    await this.#ask(asked, able, response, signal);
    return response;
  }

  /** The first agent resolves; the others say whether they have what it has found, or what they find for another platform. */
  async #ask(
    asked: { tenant: string; environment: Environment; language: string },
    able: { agent: LinkedAgent; answer: AgentAnswer }[],
    response: ValidateModuleResponse,
    signal: AbortSignal,
  ): Promise<void> {
    const { questions } = this.#options;
    const [first, ...others] = able;
    if (first === undefined) return;
    const found = await questions.resolve(first.agent.id, asked, signal);
    if (found.error !== undefined) {
      response.error = found.error;
      return;
    }
    response.lock = found.lock;
    response.sizeBytes = found.sizeBytes;
    first.answer.held = found.held;
    const locked = { ...asked, decidedLocks: { [found.platform]: found.lock } };
    await Promise.all(
      others.map(async ({ agent, answer }) => {
        try {
          const { held, error } = await questions.resolve(agent.id, locked, signal);
          answer.held = held;
          answer.reason = error?.message ?? '';
        } catch (error) {
          signal.throwIfAborted();
          answer.reason = messageOf(error);
        }
      }),
    );
  }
}

function answerOf(agent: Pick<Candidate, 'id' | 'name'>, reason: string | undefined): AgentAnswer {
  return create(AgentAnswerSchema, { agentId: agent.id, name: agent.name, reason: reason ?? '' });
}
