import type { Launcher } from '../launcher/launcher.ts';
import type { AttemptKey } from './executor.ts';

/** Ends containers with the lease of the agent, also when the agent cannot. */
export interface ContainerGuard {
  /** @param container its name; the file that is there when it was ended so; how long it may go on after the lease */
  guard(key: AttemptKey, container: { name: string; mark: string; maxDisconnectMs: number }): void;
  /** The container is gone. */
  release(key: AttemptKey): void;
}

/** @param engine path of the engine's socket */
export function launcherGuard(
  launcher: Pick<Launcher, 'guardContainer' | 'releaseContainer'>,
  engine: string,
): ContainerGuard {
  return {
    guard: ({ executionId, attempt }, { name, mark, maxDisconnectMs }) => {
      const deadline = { mark, max_disconnect_ms: maxDisconnectMs };
      launcher.guardContainer({ execution: executionId, attempt, engine, container: name, ...deadline });
    },
    release: ({ executionId, attempt }) => launcher.releaseContainer(executionId, attempt),
  };
}
