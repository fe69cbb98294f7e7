import { describe, expect, test } from 'vitest';
import { GroupCommit } from './group-commit.ts';

/** Batches that end when the test says so. */
function gated() {
  const batches: { items: number[]; end: (error?: Error) => void }[] = [];
  const write = (items: number[]) =>
    new Promise<string[]>((resolve, reject) => {
      const end = (error?: Error) =>
        error === undefined ? resolve(items.map((item) => `done ${item}`)) : reject(error);
      batches.push({ items, end });
    });
  return { batches, write };
}

/** The next write is started a few microtasks after the end of the last. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('GroupCommit', () => {
  test('writes a lone item at once, and what comes meanwhile together', async () => {
    const { batches, write } = gated();
    const commits = new GroupCommit({ write, concurrency: 1, maxItems: 10 });
    const results = [1, 2, 3].map((item) => commits.add(item));
    expect(batches.map((batch) => batch.items)).toEqual([[1]]);
    batches[0]?.end();
    expect(await results[0]).toBe('done 1');
    await turn();
    expect(batches[1]?.items).toEqual([2, 3]);
    batches[1]?.end();
    expect(await Promise.all(results)).toEqual(['done 1', 'done 2', 'done 3']);
  });

  test('keeps batches within their size', async () => {
    const { batches, write } = gated();
    const commits = new GroupCommit({ write, concurrency: 1, maxItems: 2 });
    const results = [1, 2, 3, 4].map((item) => commits.add(item));
    batches[0]?.end();
    await results[0];
    await turn();
    expect(batches[1]?.items).toEqual([2, 3]);
    batches[1]?.end();
    await results[2];
    await turn();
    batches[2]?.end();
    expect(await results[3]).toBe('done 4');
  });

  test('ends a batch before it is too large, but for a single item', async () => {
    const { batches, write } = gated();
    const size = { of: (item: number) => item, max: 10 };
    const commits = new GroupCommit({ write, concurrency: 1, maxItems: 10, size });
    const results = [1, 4, 5, 3, 20, 1].map((item) => commits.add(item));
    for (const [batch, last] of [0, 2, 3, 4, 5].entries()) {
      batches[batch]?.end();
      await results[last];
      await turn();
    }
    expect(batches.map(({ items }) => items)).toEqual([[1], [4, 5], [3], [20], [1]]);
  });

  test('an item that cannot be written fails alone', async () => {
    const written: number[][] = [];
    const commits = new GroupCommit({
      write: async (items: number[]) => {
        written.push(items);
        await Promise.resolve();
        if (items.includes(3)) throw new Error('3 is bad');
        return items;
      },
      concurrency: 1,
      maxItems: 10,
    });
    const results = await Promise.allSettled([1, 2, 3, 4].map((item) => commits.add(item)));
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
    expect(written).toEqual([[1], [2, 3, 4], [2], [3], [4]]);
  });

  test('gathers under load, and loses nothing by it', async () => {
    const sizes: number[] = [];
    const commits = new GroupCommit({
      write: async (items: number[]) => {
        sizes.push(items.length);
        await turn();
        return items;
      },
      concurrency: 1,
      maxItems: 100,
      gatherMs: () => 2,
    });
    const results: Promise<number>[] = [];
    for (let item = 0; item < 400; item++) {
      results.push(commits.add(item));
      if (item % 4 === 0) await turn();
    }
    expect(await Promise.all(results)).toEqual(Array.from({ length: 400 }, (_, item) => item));
    expect(sizes.reduce((sum, size) => sum + size)).toBe(400);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(100);
  });
});
