import { Code, ConnectError } from '@connectrpc/connect';

/** A refused REST request whose HTTP status is not the one of its code: 413, 415. */
export class RestRefusal extends Error {
  readonly status: number;
  readonly connectError: ConnectError;

  constructor(status: number, connectError: ConnectError) {
    super(connectError.message, { cause: connectError });
    this.name = 'RestRefusal';
    this.status = status;
    this.connectError = connectError;
  }
}

export function unsupported(message: string): RestRefusal {
  return new RestRefusal(415, new ConnectError(message, Code.Unimplemented));
}

export function invalid(message: string): ConnectError {
  return new ConnectError(message, Code.InvalidArgument);
}
