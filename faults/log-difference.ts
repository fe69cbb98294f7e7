import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { Allowance, ExecutionRecord, StoredChunk } from './evidence.ts';
import type { ExecutionPlan } from './execution-plan.ts';
import { expectedOutput } from './expected.ts';

export interface LogDifference {
  missingBytes: number;
  doubledBytes: number;
  /** Stored more than once, with the same content, where that may be. */
  overlapBytes: number;
  /** For people: what differs first. */
  what: string;
}

/** What an agent without room writes instead of the rest. */
const DROPPED = /\n\[harrier: stdout (dropped|truncated) after \d+ bytes[^\]\n]*\]\n$/;

/**
 * Holds the chunks of an execution against what it prints: standard output of an attempt that succeeded must be there byte
 * for byte; that of any other one must be its beginning. No stream has a gap or a byte twice.
 */
export function compareLog(
  plan: ExecutionPlan,
  record: ExecutionRecord,
  chunks: readonly StoredChunk[],
  { outputMayBeDropped, chunksMayOverlap }: Pick<Allowance, 'outputMayBeDropped' | 'chunksMayOverlap'>,
): LogDifference {
  const total: LogDifference = { missingBytes: 0, doubledBytes: 0, overlapBytes: 0, what: '' };
  const add = (missing: number, doubled: number, what: string) => {
    if (missing === 0 && doubled === 0) return;
    total.missingBytes += missing;
    total.doubledBytes += doubled;
    total.what ||= what;
  };
  const expected = expectedOutput(plan);
  const streams = Map.groupBy(chunks, ({ attempt, stream }) => `${attempt} ${stream}`);
  if (record.final && record.state === State.SUCCEEDED && !streams.has(`${record.attempt} stdout`)) {
    streams.set(`${record.attempt} stdout`, []);
  }
  for (const [name, parts] of streams) {
    const { data, gapBytes, repeatedBytes, overlapBytes } = joined(parts, chunksMayOverlap);
    total.overlapBytes += overlapBytes;
    add(gapBytes, repeatedBytes, `${name} has ${gapBytes} bytes of gaps, ${repeatedBytes} bytes twice`);
    // Preparations write to standard error too.
    if (!name.endsWith('stdout')) continue;
    const isWhole = record.state === State.SUCCEEDED && name.startsWith(`${record.attempt} `);
    const marker = outputMayBeDropped ? DROPPED.exec(data.toString('latin1')) : null;
    const kept = marker === null ? data : data.subarray(0, marker.index);
    const shared = kept.subarray(0, expected.length);
    const differing = differingBytes(shared, expected);
    const short = isWhole && marker === null ? expected.length - shared.length : 0;
    const long = kept.length - shared.length;
    add(short + differing, long, `${name} has ${kept.length} of ${expected.length} bytes, ${differing} of them wrong`);
  }
  return total;
}

function joined(
  chunks: readonly StoredChunk[],
  mayOverlap: boolean,
): { data: Buffer; gapBytes: number; repeatedBytes: number; overlapBytes: number } {
  let data = Buffer.alloc(0);
  let [end, gapBytes, repeatedBytes, overlapBytes] = [0, 0, 0, 0];
  for (const { offset, data: part } of [...chunks].sort((a, b) => a.offset - b.offset)) {
    gapBytes += Math.max(0, offset - end);
    const repeated = part.subarray(0, Math.max(0, end - offset));
    // What is there has no gaps of its own: those before it are left out.
    const there = data.subarray(data.length - (end - offset)).subarray(0, repeated.length);
    const wrong = mayOverlap ? differingBytes(repeated, there) : repeated.length;
    repeatedBytes += wrong;
    overlapBytes += repeated.length - wrong;
    data = Buffer.concat([data, part.subarray(repeated.length)]);
    end = Math.max(end, offset + part.length);
  }
  return { data, gapBytes, repeatedBytes, overlapBytes };
}

function differingBytes(data: Buffer, expected: Buffer): number {
  if (data.equals(expected.subarray(0, data.length))) return 0;
  let count = 0;
  for (const [i, byte] of data.entries()) if (byte !== expected[i]) count++;
  return count;
}
