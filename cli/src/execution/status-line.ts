import type { ExecutionStateChange, Progress } from '@harrier/shared/gen/execution';
import { isTerminal, paint, printable, writeError } from '../output/terminal.ts';
import { stateName } from './describe.ts';

const BAR_WIDTH = 24;
const ERASE_LINE = '\r\x1b[K';

/** The last line of a terminal, on standard error: what an execution does now. Without a terminal it shows nothing. */
export class StatusLine {
  readonly #shown = isTerminal(process.stderr);
  #visible = false;

  async state(change: ExecutionStateChange): Promise<void> {
    const reason = change.waitingReason === '' ? '' : `: ${change.waitingReason}`;
    const attempt = change.attempt > 1 ? ` (attempt ${change.attempt})` : '';
    await this.#show(`${stateName(change.state)}${attempt}${reason}`);
  }

  async progress(progress: Progress): Promise<void> {
    await this.#show(progressBar(progress));
  }

  /** Makes room for other output. */
  async clear(): Promise<void> {
    if (!this.#visible) return;
    this.#visible = false;
    await writeError(ERASE_LINE);
  }

  async #show(text: string): Promise<void> {
    if (!this.#shown) return;
    // A terminal that does not know its width says 0.
    const room = (process.stderr.columns || 80) - 1;
    this.#visible = true;
    await writeError(`${ERASE_LINE}${paint('dim', text.slice(0, room), process.stderr)}`);
  }
}

/** `[██████░░░░]  60 % loading`. */
export function progressBar({ percent, step }: Pick<Progress, 'percent' | 'step'>): string {
  const share = Math.min(1, Math.max(0, percent / 100));
  const full = Math.round(share * BAR_WIDTH);
  const bar = '█'.repeat(full) + '░'.repeat(BAR_WIDTH - full);
  return `[${bar}] ${String(Math.round(share * 100)).padStart(3)} %${step === '' ? '' : ` ${printable(step)}`}`;
}
