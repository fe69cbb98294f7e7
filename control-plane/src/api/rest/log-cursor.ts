import type { DescField, DescMessage, Message } from '@bufbuild/protobuf';
import { type LogChunk, LogChunk_Stream, LogChunkSchema } from '@harrier/shared/gen/execution';
import { invalid } from './refusal.ts';

/** How far a reader of log bytes has come; as text the id of a server-sent event, `<attempt>:<stdout offset>:<stderr offset>`. */
export interface LogCursor {
  /** 0: whichever is current. */
  attempt: number;
  stdoutOffset: bigint;
  stderrOffset: bigint;
}

/** Requests that can start in the middle of a log. */
type Resumable = Message & LogCursor;

const RESUME_FIELDS = ['attempt', 'stdoutOffset', 'stderrOffset'];

export function isResumable(schema: DescMessage): boolean {
  return RESUME_FIELDS.every((localName) => schema.fields.some((field) => field.localName === localName));
}

export function cursorOf(request: Message): LogCursor {
  const { attempt, stdoutOffset, stderrOffset } = request as Resumable;
  return { attempt, stdoutOffset, stderrOffset };
}

/** Applies `Last-Event-ID`: an EventSource that reconnects sends the URL it was made with, so the id wins over the query. */
export function resumeAfter(request: Message, lastEventId: string): void {
  const parsed = /^(\d{1,9}):(\d{1,18}):(\d{1,18})$/.exec(lastEventId);
  if (parsed === null) {
    throw invalid(`last-event-id: expected <attempt>:<stdout>:<stderr>, got ${JSON.stringify(lastEventId)}`);
  }
  const [, attempt = '', stdout = '', stderr = ''] = parsed;
  const cursor = { attempt: Number(attempt), stdoutOffset: BigInt(stdout), stderrOffset: BigInt(stderr) };
  Object.assign(request, cursor);
}

/** Moves past the bytes of a chunk; offsets begin anew with each attempt. */
export function advance(cursor: LogCursor, chunk: LogChunk): void {
  if (chunk.attempt !== cursor.attempt) {
    if (cursor.attempt !== 0) {
      cursor.stdoutOffset = 0n;
      cursor.stderrOffset = 0n;
    }
    cursor.attempt = chunk.attempt;
  }
  const end = chunk.offset + BigInt(chunk.data.length);
  if (chunk.stream === LogChunk_Stream.STDERR) cursor.stderrOffset = end;
  else cursor.stdoutOffset = end;
}

export function formatCursor(cursor: LogCursor): string {
  return `${cursor.attempt}:${cursor.stdoutOffset}:${cursor.stderrOffset}`;
}

/** The field of a streamed response that holds log bytes. */
export function findChunkField(schema: DescMessage): DescField | undefined {
  return schema.fields.find((field) => field.message?.typeName === LogChunkSchema.typeName);
}
