import type { EnvironmentProvider, EnvironmentRequest, PreparedEnvironment } from './environment.ts';

/** Which environments this host can prepare, as `EnvironmentSupport` of the link has it. */
export interface Support {
  available: string[];
  /** The others, each with the reason. */
  unavailable: Record<string, string>;
}

/** The environments of this agent by kind, and what the control plane was told of them. */
export class EnvironmentRegistry {
  readonly #providers = new Map<string, EnvironmentProvider>();
  readonly #capabilities = new Map<string, () => string | undefined>();
  readonly #onSupportChange: () => void;
  #told: string | undefined;

  /** @param onSupportChange what can be prepared is no longer what was told; asks for `tellChange` */
  constructor(onSupportChange: () => void) {
    this.#onSupportChange = onSupportChange;
  }

  /** A later provider of the same kind takes the place of the former. */
  add(provider: EnvironmentProvider): void {
    this.#providers.set(provider.kind, provider);
  }

  /**
   * Something else that this host may have, told with the environments.
   * @param unavailable as that of a provider
   */
  addCapability(name: string, unavailable: () => string | undefined): void {
    this.#capabilities.set(name, unavailable);
  }

  /** The provider of what a request wants when it can prepare it now, else why not. */
  find(
    request: Pick<EnvironmentRequest, 'environment' | 'language'>,
  ): { provider: EnvironmentProvider } | { reason: string } {
    const kind = providerKind(request);
    const provider = this.#providers.get(kind);
    if (provider === undefined) {
      const kinds = this.support().available.join(', ');
      return { reason: `this agent has no environment "${kind}"; it has ${kinds}` };
    }
    const reason = provider.unavailable();
    return reason === undefined ? { provider } : { reason: `no environment "${kind}" on this agent: ${reason}` };
  }

  /** Keeps whatever is there from being evicted, for an attempt of a former agent. */
  holdAll(): PreparedEnvironment {
    const held = [...this.#providers.values()].map((provider) => provider.holdAll?.());
    return {
      start: undefined,
      release: () => {
        for (const one of held) one?.release();
      },
    };
  }

  support(): Support {
    const support: Support = { available: [], unavailable: {} };
    const kinds = [...this.#providers.values()].map((provider) => [provider.kind, provider.unavailable()] as const);
    const others = [...this.#capabilities].map(([name, unavailable]) => [name, unavailable()] as const);
    for (const [name, reason] of [...kinds, ...others]) {
      if (reason === undefined) support.available.push(name);
      else support.unavailable[name] = reason;
    }
    return support;
  }

  /** What can be prepared, and takes it as told. */
  tell(): Support {
    const support = this.support();
    this.#told = JSON.stringify(support);
    return support;
  }

  /** What can be prepared when it differs from what was told last. */
  tellChange(): Support | undefined {
    return this.#isTold() ? undefined : this.tell();
  }

  /** A provider may have become available or unavailable. */
  supportChanged(): void {
    if (this.#told !== undefined && !this.#isTold()) this.#onSupportChange();
  }

  #isTold(): boolean {
    return JSON.stringify(this.support()) === this.#told;
  }
}

/** Code that is not Python has an interpreter of its own in the sandbox; in other environments its language is their matter. */
export function providerKind({ environment, language }: Pick<EnvironmentRequest, 'environment' | 'language'>): string {
  const kind = environment.kind.case ?? 'inline';
  return kind !== 'inline' || language === '' || language === 'python' ? kind : language;
}
