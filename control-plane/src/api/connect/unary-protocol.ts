import type { OutgoingHttpHeaders } from 'node:http';
import { type DescMessage, fromBinary, type Message, toBinary, toJsonString } from '@bufbuild/protobuf';
import { Code, ConnectError, type HandlerContext } from '@connectrpc/connect';
import { parseTimeout as parseConnectTimeout, trailerMux } from '@connectrpc/connect/protocol-connect';
import { parseTimeout as parseGrpcTimeout, setTrailerStatus } from '@connectrpc/connect/protocol-grpc';
import { messageOf } from '@harrier/shared';
import type { ParsedTimeout } from '../call/call-context.ts';
import { sendError } from '../error-response.ts';
import type { HttpRequest, HttpResponse } from '../http-types.ts';
import { decodeMessage } from '../json/decode-message.ts';
import { decodeUtf8 } from '../json/json-text.ts';
import { checkBinarySize } from '../message-size.ts';
import { headersOf } from '../response-writer.ts';

/** How one protocol carries a call of one message each way, without compression. */
export interface UnaryProtocol {
  name: string;
  /** What the protocol adds to a message. */
  envelopeBytes: number;
  timeout(header: Headers, maxMs: number): ParsedTimeout;
  /** Throws a ConnectError. */
  decode(schema: DescMessage, body: Uint8Array): Message;
  sendAnswer(response: HttpResponse, context: HandlerContext, schema: DescMessage, answer: Message): void;
  /** `context` is missing when there was none yet. */
  sendError(response: HttpResponse, context: HandlerContext | undefined, error: ConnectError): void;
}

/** The protocol of a request; undefined for one that has to be left to Connect's own handler. */
export function unaryProtocolOf({ method, headers }: HttpRequest): UnaryProtocol | undefined {
  if (method !== 'POST') return undefined;
  const protocol = BY_CONTENT_TYPE[headers['content-type'] ?? ''];
  if (protocol === undefined) return undefined;
  const encoding = headers[protocol === grpc ? 'grpc-encoding' : 'content-encoding'];
  return encoding === undefined || encoding === 'identity' ? protocol : undefined;
}

const connectTimeout: UnaryProtocol['timeout'] = (header, maxMs) =>
  parseConnectTimeout(header.get('connect-timeout-ms'), maxMs);

const sendConnectError: UnaryProtocol['sendError'] = (response, context, error) => {
  sendError(response, error, { headers: connectHeaders(context) });
};

const connectJson: UnaryProtocol = {
  name: 'connect',
  envelopeBytes: 0,
  timeout: connectTimeout,
  decode: (schema, body) => decodeMessage(schema, decodeUtf8(body)),
  sendAnswer: (response, context, schema, answer) =>
    send(response, 'application/json', connectHeaders(context), Buffer.from(toJsonString(schema, answer))),
  sendError: sendConnectError,
};

const connectProto: UnaryProtocol = {
  name: 'connect',
  envelopeBytes: 0,
  timeout: connectTimeout,
  decode: decodeBinary,
  sendAnswer: (response, context, schema, answer) =>
    send(response, 'application/proto', connectHeaders(context), toBinary(schema, answer)),
  sendError: sendConnectError,
};

const GRPC_ENVELOPE_BYTES = 5;

const grpc: UnaryProtocol = {
  name: 'grpc',
  envelopeBytes: GRPC_ENVELOPE_BYTES,
  timeout: (header, maxMs) => parseGrpcTimeout(header.get('grpc-timeout'), maxMs),
  decode: (schema, body) => decodeBinary(schema, openEnvelope(body)),
  sendAnswer(response, context, schema, answer) {
    response.writeHead(200, { ...headersOf(context.responseHeader), 'content-type': GRPC_TYPE });
    response.addTrailers({ ...headersOf(context.responseTrailer), 'grpc-status': '0' });
    response.end(envelope(toBinary(schema, answer)));
  },
  sendError(response, context, error) {
    response.writeHead(200, { ...headersOf(context?.responseHeader), 'content-type': GRPC_TYPE });
    response.addTrailers(headersOf(setTrailerStatus(new Headers(context?.responseTrailer), error)));
    response.end();
  },
};

/**
 * Answers a call of gRPC or gRPC-Web with an error and nothing else, in one block of headers ("Trailers-Only" of the gRPC
 * protocol over HTTP/2).
 */
export function sendGrpcError(response: HttpResponse, contentType: string, error: ConnectError): void {
  response.writeHead(200, { ...headersOf(setTrailerStatus(new Headers(), error)), 'content-type': contentType });
  response.end();
}

const GRPC_TYPE = 'application/grpc+proto';

const BY_CONTENT_TYPE: Record<string, UnaryProtocol | undefined> = {
  'application/json': connectJson,
  'application/json; charset=utf-8': connectJson,
  'application/proto': connectProto,
  'application/grpc': grpc,
  'application/grpc+proto': grpc,
};

function send(response: HttpResponse, contentType: string, headers: OutgoingHttpHeaders, body: Uint8Array): void {
  response.writeHead(200, { ...headers, 'content-type': contentType, 'content-length': body.byteLength });
  response.end(body);
}

function connectHeaders(context: HandlerContext | undefined): OutgoingHttpHeaders {
  return context === undefined ? {} : headersOf(trailerMux(context.responseHeader, context.responseTrailer));
}

function decodeBinary(schema: DescMessage, bytes: Uint8Array): Message {
  checkBinarySize(schema, bytes);
  try {
    return fromBinary(schema, bytes);
  } catch (error) {
    throw new ConnectError(messageOf(error), Code.InvalidArgument);
  }
}

/** The one message in a gRPC body: a flag byte, the length in four, the message. */
function openEnvelope(body: Uint8Array): Uint8Array {
  if (body.length === 0) throw new ConnectError('protocol error: the call has no message', Code.Unimplemented);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  if (body.length < GRPC_ENVELOPE_BYTES || view.getUint32(1) > body.length - GRPC_ENVELOPE_BYTES) {
    throw new ConnectError('protocol error: the message ends early', Code.InvalidArgument);
  }
  if (view.getUint8(0) !== 0) {
    throw new ConnectError('protocol error: a compressed message needs grpc-encoding', Code.Internal);
  }
  if (view.getUint32(1) < body.length - GRPC_ENVELOPE_BYTES) {
    throw new ConnectError('protocol error: the call has more than one message', Code.Unimplemented);
  }
  return body.subarray(GRPC_ENVELOPE_BYTES);
}

function envelope(message: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(GRPC_ENVELOPE_BYTES + message.length);
  bytes.writeUInt8(0, 0);
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, GRPC_ENVELOPE_BYTES);
  return bytes;
}
