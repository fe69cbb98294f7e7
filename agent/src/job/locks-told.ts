import type { AgentMessage, Assignment } from '@harrier/shared/gen/link';
import type { PreparedEnvironment } from '../environment/environment.ts';
import type { AttemptKey } from '../executor/executor.ts';
import { lockFoundMessage } from './link-messages.ts';

/** More only costs that a lock is told twice. */
const MAX_TOLD = 10_000;

/**
 * A module may come without a lock although another one, or ad-hoc code, has led to the same environment before: its
 * version gets that lock now, so that other agents install the same. Nobody waits for the answer.
 */
export class LocksTold {
  readonly #send: (message: AgentMessage) => void;
  readonly #told = new Set<string>();

  constructor(send: (message: AgentMessage) => void) {
    this.#send = send;
  }

  /** Once for each link, module and environment. */
  tell(ref: AttemptKey, { program }: Assignment, { start, lock = '', platform = '' }: PreparedEnvironment): void {
    if (lock === '' || program.case !== 'python') return;
    const told = `${program.value.filename} ${start?.key}`;
    if (this.#told.has(told)) return;
    if (this.#told.size >= MAX_TOLD) this.#told.clear();
    this.#told.add(told);
    this.#send(lockFoundMessage(ref, lock, platform));
  }

  linkDown(): void {
    this.#told.clear();
  }
}
