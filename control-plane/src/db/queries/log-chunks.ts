import { isUtf8 } from 'node:buffer';
import type { Sql } from '../sql.ts';

export interface NewLogChunk {
  tenantId: string;
  executionId: string;
  attempt: number;
  /** LogChunk.Stream */
  stream: number;
  offset: number;
  data: Uint8Array;
}

/** Longest chunk that was ever stored. */
const MAX_CHUNK_BYTES = 64 * 1024;

/**
 * Stores chunks of any executions in one statement; of two that begin at the same byte the longer one stays, and chunks may
 * overlap: what a replica has left under way when an agent moved on may be stored beside what the next one stores. All bytes travel as one
 * parameter that the server cuts up, which is faster than one parameter a chunk. (postgres.js also has COPY, but when a COPY
 * fails at its end the driver never tells.)
 */
export async function storeLogChunks(sql: Sql, chunks: NewLogChunk[]): Promise<void> {
  let start = 1;
  const rows = chunks.map((chunk) => {
    const row = {
      t: chunk.tenantId,
      e: chunk.executionId,
      a: chunk.attempt,
      s: chunk.stream,
      o: chunk.offset,
      p: start,
      l: chunk.data.length,
    };
    start += chunk.data.length;
    return row;
  });
  const text = textOf(Buffer.concat(chunks.map((chunk) => chunk.data)));
  const whole = typeof text === 'string' ? sql`convert_to(${text}::text, 'UTF8')` : sql`${text}::bytea`;
  await sql`
    INSERT INTO log_chunks (tenant_id, execution_id, attempt, stream, byte_offset, data)
    SELECT t, e, a, s, o, substring(${whole} FROM p FOR l)
    FROM json_to_recordset(${JSON.stringify(rows)}::text::json)
      AS input(t uuid, e uuid, a int, s smallint, o bigint, p int, l int)
    ON CONFLICT (execution_id, attempt, stream, byte_offset) DO UPDATE SET data = excluded.data
      WHERE octet_length(log_chunks.data) < octet_length(excluded.data)`;
}

/** The driver sends bytes in hexadecimal; what is text anyway takes half the room, and a fifth less time to store. */
function textOf(bytes: Buffer): string | Buffer {
  return isUtf8(bytes) && !bytes.includes(0) ? bytes.toString('utf8') : bytes;
}

export interface LogRange {
  tenantId: string;
  executionId: string;
  attempt: number;
  stream: number;
}

/** Stored chunks of a stream that end behind `offset`, in order; the first ones may begin before it. */
export async function readLogChunks(
  sql: Sql,
  range: LogRange,
  offset: number,
  maxChunks: number,
): Promise<{ offset: number; data: Uint8Array }[]> {
  return await sql<{ offset: number; data: Uint8Array }[]>`
    SELECT byte_offset AS "offset", data FROM log_chunks
    WHERE execution_id = ${range.executionId} AND attempt = ${range.attempt} AND stream = ${range.stream}
      AND tenant_id = ${range.tenantId}
      AND byte_offset > ${offset - MAX_CHUNK_BYTES} AND byte_offset + octet_length(data) > ${offset}
    ORDER BY byte_offset LIMIT ${maxChunks}`;
}

/**
 * How many bytes of a stream are stored without a gap: of two writes that were under way when a control plane ended, the
 * second may be there without the first.
 */
export async function storedLogBytes(sql: Sql, range: LogRange): Promise<number> {
  const [row] = await sql<{ stored: number | null }[]>`
    SELECT min(ends) AS stored FROM (
      SELECT max(byte_offset + octet_length(data)) OVER (ORDER BY byte_offset) AS ends,
        lead(byte_offset) OVER (ORDER BY byte_offset) AS next, min(byte_offset) OVER () AS first
      FROM log_chunks
      WHERE execution_id = ${range.executionId} AND attempt = ${range.attempt} AND stream = ${range.stream}
        AND tenant_id = ${range.tenantId}
    ) AS chunks
    WHERE first = 0 AND (next IS NULL OR next > ends)`;
  return row?.stored ?? 0;
}
