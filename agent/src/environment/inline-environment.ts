import type { EnvironmentProvider, PreparedEnvironment, ResolvedEnvironment } from './environment.ts';

const PREPARED: PreparedEnvironment = { start: undefined, release: () => {} };

/** The environment `inline`: the launcher's own interpreter, which is always there. */
export class InlineEnvironment implements EnvironmentProvider {
  readonly kind = 'inline';

  unavailable(): undefined {
    return undefined;
  }

  prepared(): PreparedEnvironment {
    return PREPARED;
  }

  async prepare(): Promise<PreparedEnvironment> {
    return PREPARED;
  }

  /** There is nothing to lock. */
  async resolve(): Promise<ResolvedEnvironment> {
    return { lock: '', platform: '', sizeBytes: 0, held: true };
  }
}
