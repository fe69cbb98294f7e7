import { Code, ConnectError } from '@connectrpc/connect';
import type { HttpRequest } from './http-types.ts';

/**
 * Reads the whole body. Rejects with `resource_exhausted` once it is known to be larger than `maxBytes`, by its announced
 * length before a byte is read, and with `canceled` when the caller goes away before its end.
 *
 * @param envelopeBytes What the protocol adds to the body that is limited.
 */
export function readBody(request: HttpRequest, maxBytes: number, envelopeBytes = 0): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > maxBytes + envelopeBytes) return Promise.reject(tooLarge(maxBytes));

  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > maxBytes + envelopeBytes) {
        // What follows is thrown away until the response has ended the exchange.
        request.removeAllListeners('data');
        request.resume();
        reject(tooLarge(maxBytes));
      } else chunks.push(chunk);
    });
    request.once('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)));
    request.once('error', reject);
    request.once('close', () => {
      if (!request.complete) reject(new ConnectError('the caller went away', Code.Canceled));
    });
  });
}

function tooLarge(maxBytes: number): ConnectError {
  return new ConnectError(`body: larger than ${maxBytes} bytes`, Code.ResourceExhausted);
}
