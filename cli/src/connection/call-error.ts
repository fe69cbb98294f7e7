import { Code, ConnectError } from '@connectrpc/connect';
import { CliError, EXIT } from '../failure.ts';
import type { Connection } from './connection.ts';

/** An error of a call as one for people; any other error as it is. */
export function describeCallError(error: unknown, connection: Connection): unknown {
  if (!(error instanceof ConnectError)) return error;
  const { code, rawMessage } = error;
  const errno = errnoOf(error);
  if (errno !== undefined || code === Code.Unavailable) {
    const why = errno === undefined ? rawMessage : (REASONS[errno] ?? errno);
    const cure = errno === 'ECONNREFUSED' ? '\nstart one with `harrier up`, or name another with --server' : '';
    return new CliError(`no answer from the control plane at ${connection.url}: ${why}${cure}`, EXIT.unreachable, {
      cause: error,
    });
  }
  if (code === Code.Unimplemented && rawMessage.startsWith('HTTP ')) {
    const message = `what answers at ${connection.url} is not a Harrier control plane: ${rawMessage}`;
    return new CliError(message, EXIT.unreachable, { cause: error });
  }
  if (code === Code.Unauthenticated) {
    const cure = `the key came from ${connection.keySource}`;
    return new CliError(`${rawMessage}\n${cure}`, EXIT.refused, { cause: error });
  }
  const exitCode = REFUSALS.has(code) ? EXIT.refused : EXIT.unreachable;
  return new CliError(`${rawMessage} (${nameOf(code)})`, exitCode, { cause: error });
}

/** The call went wrong on the way: the control plane is gone or restarts, and what it said may be asked for again. */
export function isConnectionLoss(error: unknown): boolean {
  if (!(error instanceof ConnectError)) return false;
  return errnoOf(error) !== undefined || [Code.Unavailable, Code.Aborted].includes(error.code);
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ENOTFOUND: 'there is no host of this name',
  EAI_AGAIN: 'the name of the host could not be resolved',
  ETIMEDOUT: 'it did not answer in time',
  ECONNRESET: 'the connection was lost',
  EPIPE: 'the connection was lost',
  UND_ERR_SOCKET: 'the connection was lost',
  HPE_INVALID_CONSTANT: 'what answers there does not speak HTTP',
};

/** What the caller has to change; everything else is the server's matter. */
const REFUSALS: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.FailedPrecondition,
  Code.ResourceExhausted,
  Code.OutOfRange,
  Code.Unimplemented,
]);

function errnoOf(error: ConnectError): string | undefined {
  for (let cause: unknown = error.cause; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (typeof code === 'string' && /^(E[A-Z]+|EAI_AGAIN|UND_|HPE_)/.test(code) && !code.startsWith('ERR_'))
      return code;
  }
  return undefined;
}

function nameOf(code: Code): string {
  return (Code[code] ?? 'unknown').replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
}
