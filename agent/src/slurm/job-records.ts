import { crc32 } from 'node:zlib';

/** A frame of the runtime in a job; see `agent/runtime/job_records.py`. */
export interface JobRecord {
  header: { type: string } & Record<string, unknown>;
  body: Buffer;
}

/** `u32` CRC-32, then a frame: `u32` length of the header, `u32` length of the body, both. All big-endian. */
const CHECKSUM_BYTES = 4;
const PREFIX_BYTES = 8;

/**
 * Cuts what was read of a job's records.
 * @returns the records that are whole, and how many bytes they take. The rest is not there yet, or, where a network file
 * system shows a length before the bytes, not all of it
 */
export function cutRecords(data: Buffer): { records: JobRecord[]; bytes: number } {
  const records: JobRecord[] = [];
  let start = 0;
  while (data.length - start >= CHECKSUM_BYTES + PREFIX_BYTES) {
    const frameStart = start + CHECKSUM_BYTES;
    const headerStart = frameStart + PREFIX_BYTES;
    const bodyStart = headerStart + data.readUInt32BE(frameStart);
    const end = bodyStart + data.readUInt32BE(frameStart + 4);
    if (end > data.length || crc32(data.subarray(frameStart, end)) !== data.readUInt32BE(start)) break;
    const header = JSON.parse(data.toString('utf8', headerStart, bodyStart)) as JobRecord['header'];
    records.push({ header, body: data.subarray(bodyStart, end) });
    start = end;
  }
  return { records, bytes: start };
}

/** How many bytes the first record of the data takes, as far as that can be told; a large one needs a larger read. */
export function firstRecordBytes(data: Buffer): number {
  if (data.length < CHECKSUM_BYTES + PREFIX_BYTES) return CHECKSUM_BYTES + PREFIX_BYTES;
  return CHECKSUM_BYTES + PREFIX_BYTES + data.readUInt32BE(CHECKSUM_BYTES) + data.readUInt32BE(CHECKSUM_BYTES + 4);
}
