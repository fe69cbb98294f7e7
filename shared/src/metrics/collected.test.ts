import { expect, test } from 'vitest';
import { collectedCounter, collectedGauge } from './collected.ts';
import { createRegistry, Exposition } from './exposition.ts';

const OPEN_METRICS = 'application/openmetrics-text; version=1.0.0';

async function samples(exposition: Exposition, accept?: string): Promise<string[]> {
  const { body } = await exposition.render(accept);
  return body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

test('what is read is told anew each time; labels that are gone are gone', async () => {
  const registry = createRegistry();
  let queues = [
    { labels: { queue: 'a' }, value: 1 },
    { labels: { queue: 'b' }, value: 2 },
  ];
  let counted = 5;
  collectedGauge(registry, { name: 'depth', help: 'Depth.', labelNames: ['queue'], read: () => queues });
  collectedCounter(registry, { name: 'done_total', help: 'Done.', read: () => counted });
  const exposition = new Exposition(registry);
  expect(await samples(exposition)).toEqual(['depth{queue="a"} 1', 'depth{queue="b"} 2', 'done_total 5']);
  queues = [{ labels: { queue: 'b' }, value: 3 }];
  counted = 7;
  expect(await samples(exposition)).toEqual(['depth{queue="b"} 3', 'done_total 7']);
});

test('what cannot be read has no figures, not a wrong one', async () => {
  const registry = createRegistry();
  const fail = () => Promise.reject(new Error('the database is away'));
  collectedGauge(registry, { name: 'broken', help: 'Broken.', read: fail });
  collectedGauge(registry, { name: 'unknown', help: 'Unknown.', read: () => undefined });
  collectedGauge(registry, { name: 'well', help: 'Well.', read: () => 1 });
  const exposition = new Exposition(registry);
  for (const accept of [undefined, OPEN_METRICS]) expect(await samples(exposition, accept)).toEqual(['well 1']);
});

test('pages of both forms that are asked for at once are each whole, with the names that they should have', async () => {
  const registry = createRegistry();
  collectedCounter(registry, { name: 'done_total', help: 'Done.', read: async () => 3 });
  const exposition = new Exposition(registry);
  const asked = [undefined, OPEN_METRICS, 'text/plain', `${OPEN_METRICS};q=0.8,*/*`, undefined];
  const pages = await Promise.all(asked.map((accept) => exposition.render(accept)));
  for (const [i, { contentType, body }] of pages.entries()) {
    const isOpen = asked[i]?.startsWith(OPEN_METRICS) === true;
    expect(contentType.startsWith('application/openmetrics-text')).toBe(isOpen);
    expect(body.endsWith('# EOF\n')).toBe(isOpen);
    expect(body).toContain(isOpen ? '# TYPE done counter' : '# TYPE done_total counter');
    expect(body).toContain('done_total 3');
    expect(body).not.toContain('done_total_total');
  }
});
