import { Code, ConnectError } from '@connectrpc/connect';
import type { BodyBudget } from './body-budget.ts';
import type { HttpRequest } from './http-types.ts';

/**
 * Most bytes and longest time for which the rest of a refused body is read and thrown away. Without it a connection that
 * is to be closed is reset under a caller who is still sending, and who then never sees the answer.
 */
const MAX_DISCARDED_BYTES = 64 * 1024 * 1024;
const MAX_DISCARD_MS = 5_000;

/**
 * Reads the whole body. Rejects with `resource_exhausted` once it is known to be larger than `maxBytes` and the caller has
 * sent it, within limits, or when too much of other requests is in memory, and with `canceled` when the caller goes away
 * before its end.
 *
 * @param envelopeBytes What the protocol adds to the body that is limited.
 */
export function readBody(
  request: HttpRequest,
  maxBytes: number,
  budget: BodyBudget,
  envelopeBytes = 0,
): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > maxBytes + envelopeBytes) return discard(request).then(() => Promise.reject(tooLarge(maxBytes)));

  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    let refused = false;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      try {
        if (length > maxBytes + envelopeBytes) throw tooLarge(maxBytes);
        budget.take(request, chunk.length);
        chunks.push(chunk);
      } catch (refusal) {
        refused = true;
        request.removeAllListeners('data');
        void discard(request).then(() => reject(refusal));
      }
    });
    request.once('end', () => {
      if (!refused) resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks));
    });
    request.once('error', reject);
    request.once('close', () => {
      if (!request.complete) reject(new ConnectError('the caller went away', Code.Canceled));
    });
  });
}

/** Throws away what comes until the end of the body, or until it is too much. Never rejects. */
function discard(request: HttpRequest): Promise<void> {
  return new Promise((resolve) => {
    let left = MAX_DISCARDED_BYTES;
    const timer = setTimeout(resolve, MAX_DISCARD_MS);
    const stop = () => {
      clearTimeout(timer);
      resolve();
    };
    request.on('data', (chunk: Buffer) => {
      left -= chunk.length;
      if (left < 0) stop();
    });
    request.once('end', stop);
    request.once('error', stop);
    request.once('close', stop);
  });
}

function tooLarge(maxBytes: number): ConnectError {
  return new ConnectError(`body: larger than ${maxBytes} bytes`, Code.ResourceExhausted);
}
