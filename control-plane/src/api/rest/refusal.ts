import { Code, ConnectError } from '@connectrpc/connect';

/** The error of a refused REST request whose HTTP status is not the one of its code: 413, 415. */
export type Refusal = ConnectError & { readonly status: number };

export function refusal(status: number, error: ConnectError): Refusal {
  return Object.assign(error, { status });
}

export function isRefusal(error: unknown): error is Refusal {
  return error instanceof ConnectError && 'status' in error;
}

export function unsupported(message: string): Refusal {
  return refusal(415, new ConnectError(message, Code.Unimplemented));
}

export function invalid(message: string): ConnectError {
  return new ConnectError(message, Code.InvalidArgument);
}
