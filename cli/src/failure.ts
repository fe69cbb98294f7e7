import { HarrierError } from '@harrier/shared';

/** Exit codes, as `harrier --help` prints them. A command's own code is passed on instead of `failed`. */
export const EXIT = {
  succeeded: 0,
  /** The execution FAILED, or Harrier itself did. */
  failed: 1,
  /** Wrong usage, or the control plane refused the request. */
  refused: 2,
  /** The control plane could not be reached, or the connection was lost. */
  unreachable: 3,
  /** As of timeout(1). */
  timedOut: 124,
  /** As after Ctrl-C: 128 + SIGINT. */
  cancelled: 130,
} as const;

/** Ends the program: the message goes to standard error as it is, without a stack. An empty one says nothing. */
export class CliError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT.refused, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CliError';
    this.exitCode = exitCode;
  }
}

/** Anything that was thrown as message and exit code; only a defect of ours shows its stack. */
export function failureOf(error: unknown): { message: string; exitCode: number } {
  if (error instanceof CliError) return error;
  if (error instanceof HarrierError) return { message: error.message, exitCode: EXIT.failed };
  const system = error instanceof Error && 'syscall' in error;
  if (system) return { message: error.message, exitCode: EXIT.failed };
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { message: `this is a defect of the command: ${text}`, exitCode: EXIT.failed };
}
