/** Counts what goes over the links of this replica. */
export class LinkTraffic {
  framesReceived = 0;
  framesSent = 0;
  bytesReceived = 0;
  bytesSent = 0;
  /** Links of agents that were admitted. */
  opened = 0;
  /** Of those the ones that ended, by what ended them: the code of the goodbye in small letters, or `lost`. */
  readonly closed = new Map<string, number>();

  received(bytes: number): void {
    this.framesReceived++;
    this.bytesReceived += bytes;
  }

  sent(bytes: number): void {
    this.framesSent++;
    this.bytesSent += bytes;
  }

  end(reason: string): void {
    this.closed.set(reason, (this.closed.get(reason) ?? 0) + 1);
  }
}
