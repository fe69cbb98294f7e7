import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code, ExecutionErrorSchema } from '@harrier/shared/gen/error';
import { type AgentMessage, AgentMessageSchema, type Resolve, type ResolvedSchema } from '@harrier/shared/gen/link';
import { EnvironmentError } from '../environment/environment.ts';
import type { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { requestOfResolve } from '../environment/environment-request.ts';

/** Longer than a resolver takes on a slow index; nobody waits for an answer that comes later. */
const TIMEOUT_MS = 5 * 60_000;

export interface ResolutionsOptions {
  environments: EnvironmentRegistry;
  send: (message: AgentMessage) => void;
  logger: Logger;
}

/** Answers what environments would hold, without installing them. */
export class Resolutions {
  readonly #options: ResolutionsOptions;
  #link = new AbortController();

  constructor(options: ResolutionsOptions) {
    this.#options = options;
  }

  /** Answers with `Resolved`, whatever happens, unless the link that asked is lost. */
  async answer(resolve: Resolve): Promise<void> {
    const link = this.#link.signal;
    const answer = await this.#resolve(resolve, AbortSignal.any([link, AbortSignal.timeout(TIMEOUT_MS)]));
    if (link.aborted) return;
    const message = { case: 'resolved', value: { id: resolve.id, ...answer } } as const;
    this.#options.send(create(AgentMessageSchema, { message }));
  }

  /** Nobody waits for the answers any more. */
  linkDown(): void {
    this.#link.abort(new Error('the link is gone'));
    this.#link = new AbortController();
  }

  async #resolve(
    resolve: Resolve,
    signal: AbortSignal,
  ): Promise<Omit<MessageInitShape<typeof ResolvedSchema>, '$typeName' | '$unknown' | 'id'>> {
    const request = requestOfResolve(resolve);
    const found = this.#options.environments.find(request);
    if ('reason' in found) return { error: failure(Code.ENVIRONMENT_FAILED, found.reason) };
    try {
      const { lock, platform, sizeBytes, held } = await found.provider.resolve(request, signal);
      return { lock, platform, sizeBytes: BigInt(sizeBytes), held };
    } catch (error) {
      if (error instanceof EnvironmentError) return { error: failure(error.code, error.message) };
      if (signal.aborted)
        return { error: failure(Code.ENVIRONMENT_FAILED, 'the environment took too long to resolve') };
      this.#options.logger.error({ err: error, tenant: resolve.tenant }, 'an environment could not be resolved');
      return { error: failure(Code.INTERNAL, `the environment could not be resolved: ${messageOf(error)}`) };
    }
  }
}

function failure(code: Code, message: string) {
  return create(ExecutionErrorSchema, { code, message });
}
