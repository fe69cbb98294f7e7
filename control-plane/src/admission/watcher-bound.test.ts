import { HarrierError } from '@harrier/shared';
import { expect, test, vi } from 'vitest';
import { WatcherBound } from './watcher-bound.ts';

test('a tenant has as many readers as it may, whatever others have', () => {
  const onRefused = vi.fn();
  const bound = new WatcherBound({ maxPerTenant: 2, onRefused });
  const leave = bound.enter('a');
  bound.enter('a');
  const refused = () => bound.enter('a');
  expect(refused).toThrow(HarrierError);
  expect(refused).toThrow('2 readers follow executions here already; try again later');
  expect(onRefused).toHaveBeenCalledTimes(2);
  bound.enter('b');
  leave();
  leave();
  bound.enter('a');
  expect(refused).toThrow(HarrierError);
});

test('without a bound anybody may follow', () => {
  const bound = new WatcherBound({ maxPerTenant: 0, onRefused: () => {} });
  for (let count = 0; count < 1000; count++) bound.enter('a');
});
