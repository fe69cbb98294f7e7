import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { HardwareSchema, Hardware_Gpu_State as State } from '@harrier/shared/gen/agent';
import { expect, test } from 'vitest';
import { isWorthTelling } from './hardware-change.ts';

const GIB = 1024n ** 3n;
const CARD = {
  uuid: 'GPU-a',
  memoryBytes: 100n * GIB,
  memoryUsedBytes: 10n * GIB,
  utilizationRatio: 0.5,
  temperatureCelsius: 50,
  powerWatts: 300,
  state: State.FREE as State,
  processes: [{ pid: 7, name: 'x', memoryBytes: 9n * GIB }],
};

function isTold(change: Partial<typeof CARD>): boolean {
  const hardware = (gpu: MessageInitShape<typeof HardwareSchema>['gpus']) =>
    create(HardwareSchema, { gpus: gpu ?? [] });
  return isWorthTelling(hardware([CARD]), hardware([{ ...CARD, ...change }]));
}

test.each([
  [{}],
  [{ memoryUsedBytes: 10n * GIB + GIB / 2n }],
  [{ utilizationRatio: 0.54 }],
  [{ temperatureCelsius: 52 }],
  [{ powerWatts: 310 }],
  [{ processes: [{ pid: 7, name: 'x', memoryBytes: 9n * GIB + 1n }] }],
])('what a card does without cease is not told: %o', (change) => {
  expect(isTold(change)).toBe(false);
});

test.each([
  [{ memoryUsedBytes: 12n * GIB }],
  [{ utilizationRatio: 0.1 }],
  [{ temperatureCelsius: 54 }],
  [{ powerWatts: 400 }],
  [{ state: State.QUARANTINED }],
  [{ processes: [] }],
])('what matters is told: %o', (change) => {
  expect(isTold(change)).toBe(true);
});

test('figures that a card tells no more are told as such', () => {
  const { utilizationRatio, memoryUsedBytes, ...lost } = CARD;
  const told = create(HardwareSchema, { gpus: [CARD] });
  expect(isWorthTelling(told, create(HardwareSchema, { gpus: [{ ...lost, memoryUsedBytes }] }))).toBe(true);
  expect(isWorthTelling(told, create(HardwareSchema, { gpus: [{ ...lost, utilizationRatio }] }))).toBe(true);
});

test('a card that comes is told', () => {
  expect(isWorthTelling(create(HardwareSchema), create(HardwareSchema, { gpus: [CARD] }))).toBe(true);
});
