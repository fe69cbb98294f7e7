import { LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import type { Clients } from '../../test/support/clients.ts';
import type { ExecutionRecord, StoredChunk } from '../evidence.ts';
import { untilAnswered } from './persistent-call.ts';

/** For one attempt: what cannot be read is not read in the next moment either. */
const READ_MS = 10_000;

/** The log of an execution that has ended, of all its attempts, as `ReadLogs` answers it. @returns undefined when it does not */
export async function readLog(
  clients: () => Clients,
  { id, attempt: last, chunks }: ExecutionRecord,
  signal: AbortSignal,
): Promise<StoredChunk[] | undefined> {
  const attempts = new Set([...chunks.map(({ attempt }) => attempt), Math.max(1, last)]);
  const read: StoredChunk[] = [];
  for (const attempt of attempts) {
    const given = AbortSignal.any([signal, AbortSignal.timeout(READ_MS)]);
    const found = await untilAnswered(clients, given, async ({ executions }, options) => {
      const pieces: StoredChunk[] = [];
      for await (const { chunk } of executions.readLogs({ id, attempt }, options)) {
        if (chunk === undefined) continue;
        const stream = chunk.stream === Stream.STDOUT ? 'stdout' : 'stderr';
        pieces.push({ attempt, stream, offset: Number(chunk.offset), data: Buffer.from(chunk.data) });
      }
      return pieces;
    }).catch(() => undefined);
    if (found === undefined) return undefined;
    read.push(...found);
  }
  return read;
}
