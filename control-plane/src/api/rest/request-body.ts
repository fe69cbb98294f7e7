import { Code, ConnectError } from '@connectrpc/connect';
import type { HttpRequest } from '../http-types.ts';
import { RestRefusal } from './refusal.ts';

/**
 * Reads the whole body. Refuses with 413 once it is known to be larger than `maxBytes`, by its announced length before a
 * byte is read. Rejects when the caller goes away before its end.
 */
export function readBody(request: HttpRequest, maxBytes: number): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > maxBytes) return Promise.reject(tooLarge(maxBytes));

  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > maxBytes) {
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

function tooLarge(maxBytes: number): RestRefusal {
  return new RestRefusal(413, Code.ResourceExhausted, `body: larger than ${maxBytes} bytes`);
}

/** Refuses with 415 what is declared to be something else than JSON in UTF-8; a body without a declaration is taken as JSON. */
export function requireJsonContent(request: HttpRequest): void {
  const { 'content-type': type, 'content-encoding': encoding } = request.headers;
  if (encoding !== undefined && encoding !== 'identity') {
    throw new RestRefusal(
      415,
      Code.Unimplemented,
      `content-encoding: ${JSON.stringify(encoding)} is not supported here`,
    );
  }
  if (type === undefined || type === 'application/json') return;
  if (/^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i.test(type)) return;
  throw new RestRefusal(
    415,
    Code.Unimplemented,
    `content-type: expected "application/json", got ${JSON.stringify(type)}`,
  );
}
