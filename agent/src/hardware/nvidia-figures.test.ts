import { expect, test } from 'vitest';
import { testdata } from '../test-support/testdata.ts';
import { parseFigures } from './nvidia-figures.ts';

test('the figures of eight cards are those of the line of each', () => {
  const cards = parseFigures(testdata('nvidia-figures-8.csv'));
  expect(cards.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(cards[0]).toEqual({
    uuid: 'GPU-57000000-0000-4000-8000-000000000000',
    index: 0,
    figures: {
      memoryUsedBytes: 71_000 * 1024 * 1024,
      utilizationRatio: 0.98,
      temperatureCelsius: 63,
      powerWatts: 600.5,
      powerLimitWatts: 700,
      uncorrectedEccErrors: 0,
    },
  });
  expect(cards[3]?.figures.uncorrectedEccErrors).toBe(1);
});

test('what a card does not tell is not known', () => {
  const [card] = parseFigures('0, GPU-a, 807, [N/A], 0, [Not Supported], [N/A], [N/A]\n');
  expect(card?.figures).toMatchObject({ utilizationRatio: undefined, temperatureCelsius: 0, powerWatts: undefined });
});

test('complaints and cards that are lost are no cards', () => {
  const text = [
    'Unable to determine the device handle for GPU1: 0000:44:00.0: Unknown Error',
    '0, GPU-a, 4, 0, 30, 20.0, 70.0, 0',
    '1, [Unknown Error], [Unknown Error], 0, 0, 0, 0, 0',
    '2, GPU-c, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]',
    '',
  ].join('\n');
  expect(parseFigures(text).map(({ uuid }) => uuid)).toEqual(['GPU-a']);
});
