import { messageOf } from '@harrier/shared';
import { type Clients, withClients } from '../connection/clients.ts';
import { EXIT } from '../failure.ts';
import { writeError } from '../output/terminal.ts';
import { exitCodeOf } from './describe.ts';
import { startAndFollow } from './follow.ts';
import type { RequestFlags, RequestInit } from './request-options.ts';
import { showExecution } from './show.ts';

/** Starts an execution, shows what comes of it, and sets the exit code that follows it. */
export async function runRequest(request: RequestInit, flags: RequestFlags): Promise<void> {
  const command = request.target?.case === 'command';
  await withClients(flags, async ({ executions }) => {
    const interrupt = createInterrupt(executions);
    try {
      const execution = await showExecution(
        startAndFollow(request, { client: executions, onId: (id) => interrupt.setId(id) }),
        { follow: flags.follow === true || (command && flags.json !== true), json: flags.json === true, command },
      );
      process.exitCode = exitCodeOf(execution);
    } finally {
      interrupt.dispose();
    }
  });
}

/** The first Ctrl-C cancels the execution and lets its end be seen; the second one leaves. */
function createInterrupt(executions: Clients['executions']): { setId(id: string): void; dispose(): void } {
  let id: string | undefined;
  let asked = false;
  const onSignal = (): void => {
    if (asked || id === undefined) process.exit(EXIT.cancelled);
    asked = true;
    void cancel(id);
  };
  async function cancel(execution: string): Promise<void> {
    try {
      // Before the control plane is asked: it may take long to answer, and the end may be shown before the answer is.
      await writeError(`\nharrier: cancelling ${execution}; once more to leave without waiting\n`);
      await executions.cancelExecution({ id: execution, reason: 'interrupted at the terminal' });
    } catch (cause) {
      await writeError(`\nharrier: ${execution} could not be cancelled and may still run: ${messageOf(cause)}\n`);
    }
  }
  process.on('SIGINT', onSignal);
  return {
    setId: (value) => {
      id = value;
    },
    dispose: () => process.off('SIGINT', onSignal),
  };
}
