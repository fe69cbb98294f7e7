import { Code, ConnectError } from '@connectrpc/connect';

/** A refused REST request whose HTTP status is not the one of its code: 405, 413, 415. */
export class RestRefusal extends Error {
  readonly status: number;
  readonly connectError: ConnectError;

  constructor(status: number, code: Code, message: string) {
    super(message);
    this.name = 'RestRefusal';
    this.status = status;
    this.connectError = new ConnectError(message, code);
  }
}

export function invalid(message: string): ConnectError {
  return new ConnectError(message, Code.InvalidArgument);
}
