import { CommanderError } from 'commander';
import { EXIT, failureOf } from './failure.ts';
import { leaveOnClosedPipe, writeError } from './output/terminal.ts';
import { createProgram } from './program.ts';

leaveOnClosedPipe();
try {
  await createProgram().parseAsync();
} catch (error) {
  process.exitCode = await report(error);
}

async function report(error: unknown): Promise<number> {
  // Commander has written its message, or the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.succeeded : EXIT.refused;
  const failure = failureOf(error);
  if (failure.message !== '') await writeError(`harrier: ${failure.message}\n`);
  return failure.exitCode;
}
