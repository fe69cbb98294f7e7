import { createHash } from 'node:crypto';

export interface Written {
  seed: number;
  stdout: number;
  stderr: number;
}

/** What `test/fixtures/writer.py` writes to a stream. */
export function writtenBytes({ seed, ...sizes }: Written, stream: 'stdout' | 'stderr'): Buffer {
  const size = sizes[stream];
  const blocks = Array.from({ length: Math.floor(size / 32) + 1 }, (_, number) =>
    createHash('sha256').update(`${seed}:${stream}:${number}`).digest(),
  );
  return Buffer.concat(blocks).subarray(0, size);
}

/** Numbers in [0, 1), the same in every run (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
