/** The other side of a link sent something that is not the protocol; the link must be closed. */
export class LinkProtocolError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'LinkProtocolError';
  }
}
