import { Code } from '@connectrpc/connect';
import type { HttpRequest, HttpResponse } from './http-types.ts';
import { retryLaterError } from './retry-later-error.ts';

const RETRY_AFTER_MS = 1_000;

/**
 * Bytes of request bodies that are in memory, over all calls: each counts from its arrival until its answer is sent. Beyond
 * the maximum a body is refused as it comes, so that a flood of large calls cannot take the memory of those in progress.
 */
export class BodyBudget {
  readonly #maxBytes: number;
  readonly #bytes = new WeakMap<HttpRequest, number>();
  #total = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Gives back what the request takes when its answer is sent, or its caller is gone. Before any of its body is read. */
  track(request: HttpRequest, response: HttpResponse): void {
    this.#bytes.set(request, 0);
    response.once('close', () => {
      this.#total -= this.#bytes.get(request) ?? 0;
      this.#bytes.delete(request);
    });
  }

  /** Takes bytes for a request that is tracked. @throws ConnectError resource_exhausted; nothing is taken then. */
  take(request: HttpRequest, bytes: number): void {
    const before = this.#bytes.get(request);
    // Nobody waits for its answer any more.
    if (before === undefined) return;
    if (this.#total + bytes > this.#maxBytes) {
      throw retryLaterError(
        `body: the control plane has ${this.#total} bytes of other requests in memory already; try again later`,
        Code.ResourceExhausted,
        RETRY_AFTER_MS,
      );
    }
    this.#total += bytes;
    this.#bytes.set(request, before + bytes);
  }
}
