import { expect, test } from 'vitest';
import { PullProgress } from './pull-progress.ts';

test('the progress of all layers is one number that never falls, and the log has no repeated lines', () => {
  const progress = new PullProgress();
  const lines = [
    { status: 'Pulling from library/python', id: '3.12' },
    { status: 'Pulling fs layer', id: 'a' },
    { status: 'Pulling fs layer', id: 'b' },
    { status: 'Downloading', id: 'a', progressDetail: { current: 500, total: 1000 } },
    { status: 'Download complete', id: 'a' },
    { status: 'Downloading', id: 'b', progressDetail: { current: 3000, total: 3000 } },
    { status: 'Extracting', id: 'a', progressDetail: { current: 1000, total: 1000 } },
    { status: 'Pull complete', id: 'a' },
    { status: 'Pull complete', id: 'b' },
    { status: 'Digest: sha256:12' },
  ];
  const told: string[] = [];
  let last = 0;
  for (const line of lines) {
    const text = progress.add(line);
    if (text !== undefined) told.push(text);
    expect(progress.percent).toBeGreaterThanOrEqual(last);
    last = progress.percent;
  }
  expect(last).toBe(100);
  expect(told).toEqual([
    '3.12: Pulling from library/python',
    'a: Download complete',
    'a: Pull complete',
    'b: Pull complete',
    'Digest: sha256:12',
  ]);
});
