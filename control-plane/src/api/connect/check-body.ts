import { promisify } from 'node:util';
import { brotliDecompress, gunzip } from 'node:zlib';
import type { DescMessage } from '@bufbuild/protobuf';
import { checkBinarySize, checkJsonSize } from '../message-size.ts';

const DECOMPRESS: Record<string, (bytes: Uint8Array, options: { maxOutputLength: number }) => Promise<Uint8Array>> = {
  gzip: promisify(gunzip),
  br: promisify(brotliDecompress),
};
const ENVELOPE_BYTES = 5;
const COMPRESSED = 1;

/**
 * Looks into the body of a call that Connect's own handlers are to decode. What cannot be read passes: they tell what is wrong.
 * @param maxBytes largest message; what is larger when it is decompressed passes, since they refuse it
 * @throws ConnectError invalid_argument for a message with too many values
 */
export async function checkBody(
  schema: DescMessage,
  headers: Headers,
  body: Uint8Array,
  maxBytes: number,
): Promise<void> {
  const type = headers.get('content-type') ?? '';
  const isJson = type.includes('json');
  const enveloped = type.startsWith('application/connect+') || type.startsWith('application/grpc');
  const encoding = headers.get(enveloped ? encodingHeader(type) : 'content-encoding') ?? '';
  for (const { compressed, bytes } of enveloped ? messagesOf(body) : [{ compressed: encoding !== '', bytes: body }]) {
    const message = compressed ? await decompressed(encoding, bytes, maxBytes) : bytes;
    if (message === undefined) continue;
    if (isJson) checkJsonSize(new TextDecoder().decode(message));
    else checkBinarySize(schema, message);
  }
}

function encodingHeader(contentType: string): string {
  return contentType.startsWith('application/connect+') ? 'connect-content-encoding' : 'grpc-encoding';
}

async function decompressed(encoding: string, bytes: Uint8Array, maxBytes: number): Promise<Uint8Array | undefined> {
  if (encoding === 'identity') return bytes;
  try {
    return await DECOMPRESS[encoding]?.(bytes, { maxOutputLength: maxBytes });
  } catch {
    return undefined;
  }
}

function* messagesOf(body: Uint8Array): Generator<{ compressed: boolean; bytes: Uint8Array }> {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  for (let at = 0; at + ENVELOPE_BYTES <= body.length; ) {
    const start = at + ENVELOPE_BYTES;
    const compressed = (view.getUint8(at) & COMPRESSED) !== 0;
    at = start + view.getUint32(at + 1);
    yield { compressed, bytes: body.subarray(start, at) };
  }
}
