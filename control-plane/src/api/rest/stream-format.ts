import { type DescField, type DescMessage, type Message, toJsonString } from '@bufbuild/protobuf';
import type { ConnectError } from '@connectrpc/connect';
import { errorToJson } from '@connectrpc/connect/protocol-connect';
import type { LogChunk } from '@harrier/shared/gen/execution';
import { advance, findChunkField, formatCursor, type LogCursor } from './log-cursor.ts';

/** How a server stream is written as the body of one response. */
export interface StreamFormat {
  contentType: string;
  encode(message: Message): string | Uint8Array;
  /** Written after the last message. */
  end: string;
  /** Written when the stream fails after its beginning; undefined: only a broken connection can tell. */
  encodeError: ((error: ConnectError) => string) | undefined;
  /** Written while nothing else is, so that proxies keep the connection. */
  heartbeat: string | undefined;
}

/** One JSON message a line; a failure is a last line `{"error": {"code", "message"}}`. */
export function createNdjsonFormat(schema: DescMessage): StreamFormat {
  return {
    contentType: 'application/x-ndjson',
    encode: (message) => `${toJsonString(schema, message)}\n`,
    end: '',
    encodeError: (error) => `${JSON.stringify({ error: errorToJson(error, undefined) })}\n`,
    heartbeat: undefined,
  };
}

/** The log bytes themselves. A failure breaks the connection off, as anything written would look like output. */
export function createLogTextFormat(schema: DescMessage): StreamFormat {
  const field = requireChunkField(schema);
  return {
    // No charset: the bytes are what the code wrote.
    contentType: 'text/plain',
    encode: (message) => (fieldValue(message, field) as LogChunk | undefined)?.data ?? new Uint8Array(),
    end: '',
    encodeError: undefined,
    heartbeat: undefined,
  };
}

/**
 * Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). The event is named after the case of
 * the message's oneof, `log` for log bytes, and its data is the JSON of that case. With `cursor` each event that carries log
 * bytes has the position after them as its id. A stream that ends says `end`, so that the reader does not connect again.
 */
export function createEventStreamFormat(schema: DescMessage, cursor: LogCursor | undefined): StreamFormat {
  const chunkField = findChunkField(schema);
  const cases = schema.oneofs[0]?.fields ?? [];

  return {
    contentType: 'text/event-stream',
    encode(message) {
      const chunk = chunkField && (fieldValue(message, chunkField) as LogChunk | undefined);
      if (chunk !== undefined && chunkField?.message !== undefined) {
        const data = toJsonString(chunkField.message, chunk);
        if (cursor === undefined) return `event: log\ndata: ${data}\n\n`;
        advance(cursor, chunk);
        return `event: log\nid: ${formatCursor(cursor)}\ndata: ${data}\n\n`;
      }
      for (const field of cases) {
        const value = fieldValue(message, field);
        if (value === undefined || field.message === undefined) continue;
        return `event: ${field.name}\ndata: ${toJsonString(field.message, value as Message)}\n\n`;
      }
      return `data: ${toJsonString(schema, message)}\n\n`;
    },
    end: 'event: end\ndata: {}\n\n',
    encodeError: (error) => `event: error\ndata: ${JSON.stringify(errorToJson(error, undefined))}\n\n`,
    heartbeat: ':\n\n',
  };
}

function requireChunkField(schema: DescMessage): DescField {
  const field = findChunkField(schema);
  if (field === undefined) throw new Error(`LOG_TEXT needs a field of type LogChunk in ${schema.typeName}`);
  return field;
}

function fieldValue(message: Message, field: DescField): unknown {
  const fields = message as Message & Record<string, unknown>;
  if (field.oneof === undefined) return fields[field.localName];
  const oneof = fields[field.oneof.localName] as { case: string | undefined; value?: unknown };
  return oneof.case === field.localName ? oneof.value : undefined;
}
