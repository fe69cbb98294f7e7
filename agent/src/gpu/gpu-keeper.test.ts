import { Hardware_Gpu_State as State } from '@harrier/shared/gen/agent';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { parseXid, type XidEvent } from '../hardware/xid.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { idleCard, idleInstance, processOn, StandInDriver } from '../test-support/stand-in-cards.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { GpuKeeper } from './gpu-keeper.ts';
import { GpuRecords } from './gpu-records.ts';
import type { GpuSelection } from './gpu-selection.ts';

const GIB = 1024 ** 3;
const A = { executionId: 'a', attempt: 1 };
const B = { executionId: 'b', attempt: 1 };
const X = '00000000:3B:00.0';
const Y = '00000000:5E:00.0';
/** What is told of a card only while its driver tells it. */
const FIGURES = [
  'memoryUsedBytes',
  'utilizationRatio',
  'temperatureCelsius',
  'powerWatts',
  'powerLimitWatts',
  'uncorrectedEccErrors',
] as const;
const TIMINGS = { leftMs: 3, leftEveryMs: 1, silentEveryMs: 1, lookEveryMs: Number.POSITIVE_INFINITY };

interface HostOptions {
  dataDir?: string;
  bootId?: string;
  selection?: GpuSelection;
  /** How long something may be left on a card. */
  leftMs?: number;
}

function keeperOn(driver: StandInDriver, options: HostOptions = {}) {
  const { dataDir = tempDir(), bootId = 'boot', selection = 'all', leftMs = TIMINGS.leftMs } = options;
  const kernel: XidEvent[] = [];
  const onChange = vi.fn();
  const keeper = new GpuKeeper({
    tool: driver,
    kernelLog: { news: async () => kernel },
    records: new GpuRecords(dataDir, bootId, silentLogger()),
    selection,
    onChange,
    logger: silentLogger(),
    timings: { ...TIMINGS, leftMs },
  });
  onTestFinished(() => keeper.close());
  const state = (uuid: string) => {
    const units = keeper.list().flatMap((card) => [card, ...(card.migInstances ?? [])]);
    const found = units.find((unit) => unit.uuid === uuid);
    return [found?.state, found?.stateReason];
  };
  const figures = (uuid: string) => {
    const card = keeper.list().find((one) => one.uuid === uuid);
    return FIGURES.filter((name) => card?.[name] !== undefined);
  };
  /** Until the card is as expected. */
  const until = async (uuid: string, wanted: State) => await vi.waitFor(() => expect(state(uuid)[0]).toBe(wanted));
  return { keeper, kernel, onChange, state, figures, until, dataDir };
}

function twoCards(): StandInDriver {
  return new StandInDriver(idleCard('x', { pciBusId: X }), idleCard('y', { pciBusId: Y, index: 1 }));
}

function change(driver: StandInDriver, uuid: string, what: Partial<ReturnType<typeof idleCard>>): void {
  driver.cards = driver.cards.map((card) => (card.uuid === uuid ? { ...card, ...what } : card));
}

describe('a card', () => {
  test('is told with its figures and who has it', async () => {
    const { keeper, onChange } = keeperOn(twoCards());
    await keeper.refresh();
    onChange.mockClear();
    expect(keeper.reserve(A, ['y'])).toBeUndefined();
    expect(onChange).toHaveBeenCalledTimes(1);
    expect(keeper.list()).toMatchObject([
      { uuid: 'x', state: State.FREE, driverVersion: '570.86.15', cudaVersion: '12.8', temperatureCelsius: 30 },
      { uuid: 'y', state: State.RESERVED, executionId: 'a', uncorrectedEccErrors: 0n },
    ]);
    expect(keeper.capacity).toBe(2);
  });

  test('is free again when nothing is left on it', async () => {
    const driver = twoCards();
    const { keeper, until } = keeperOn(driver, { leftMs: Number.POSITIVE_INFINITY });
    await keeper.refresh();
    keeper.reserve(A, ['x']);
    change(driver, 'x', { processes: [processOn(7)] });
    keeper.release(A);
    expect(keeper.reserve(B, ['x'])).toContain('still being checked');
    const looks = driver.looks;
    await vi.waitFor(() => expect(driver.looks).toBeGreaterThan(looks));
    change(driver, 'x', { processes: [] });
    await until('x', State.FREE);
    expect(keeper.reserve(B, ['x'])).toBeUndefined();
  });

  test.each([
    ['a process', { processes: [processOn(4711)] }, 'process 4711 (python3) with 500 MiB'],
    [
      'memory',
      { figures: { ...idleCard('x').figures, memoryUsedBytes: 2 * GIB } },
      '2048 MiB of memory (4 MiB when idle)',
    ],
  ])('on which %s is left is quarantined alone, until an operator clears it', async (_, left, reason) => {
    const driver = twoCards();
    const { keeper, state, until } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['x', 'y']);
    change(driver, 'x', left);
    keeper.release(A);
    await until('x', State.QUARANTINED);
    expect(state('x')[1]).toBe(`attempt 1 of execution a has left something on it: ${reason}`);
    expect(state('y')[0]).toBe(State.FREE);
    expect(keeper.capacity).toBe(1);
    expect(await keeper.clear('x')).toMatchObject({ state: State.QUARANTINED });
    expect(state('x')[1]).toBe(`something is still on it: ${reason}`);
    change(driver, 'x', idleCard('x', { pciBusId: X }));
    await keeper.refresh();
    expect(state('x')[0], 'it does not clear itself').toBe(State.QUARANTINED);
    expect(await keeper.clear('x')).toMatchObject({ uuid: 'x', state: State.FREE });
    expect(keeper.reserve(B, ['x'])).toBeUndefined();
  });

  test('is looked at only when what the attempt ran in is gone', async () => {
    const driver = twoCards();
    const { keeper, until } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['x']);
    const gone = Promise.withResolvers<void>();
    keeper.release(A, gone.promise);
    // A look for another card, as one for this card would have been by now.
    await keeper.clear('y');
    expect(keeper.reserve(B, ['x'])).toContain('still being checked');
    const { looks } = driver;
    gone.resolve();
    await until('x', State.FREE);
    expect(driver.looks).toBeGreaterThan(looks);
  });

  test('that was not used at all is not checked', async () => {
    const driver = twoCards();
    const { keeper, state } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['x']);
    change(driver, 'x', { processes: [processOn(7)] });
    keeper.giveBack(A);
    expect(state('x')[0]).toBe(State.FREE);
  });

  test('with a desktop that only draws is free', async () => {
    const drawing = { ...processOn(7), drawsOnly: true, memoryBytes: 3 * GIB };
    const figures = { ...idleCard('x').figures, memoryUsedBytes: 3 * GIB + 1000 };
    const { keeper, state } = keeperOn(new StandInDriver(idleCard('x', { processes: [drawing], figures })));
    await keeper.refresh();
    expect(state('x')[0]).toBe(State.FREE);
  });

  test('that others use is given again when they are gone', async () => {
    const driver = twoCards();
    const { keeper, state } = keeperOn(driver);
    change(driver, 'x', { processes: [processOn(99)] });
    await keeper.refresh();
    expect(state('x')).toEqual([
      State.QUARANTINED,
      expect.stringContaining('in use by others than Harrier: process 99'),
    ]);
    change(driver, 'x', { processes: [] });
    await keeper.clear('x');
    expect(state('x')[0]).toBe(State.FREE);
  });

  test('that was reserved during a look is not taken for one that others use', async () => {
    const driver = twoCards();
    const { keeper, state } = keeperOn(driver);
    await keeper.refresh();
    const look = driver.look.bind(driver);
    driver.look = async () => {
      const answer = await look();
      keeper.reserve(A, ['x']);
      keeper.giveBack(A);
      return answer;
    };
    change(driver, 'x', { processes: [processOn(7)] });
    await keeper.clear('y');
    expect(state('x')[0]).toBe(State.FREE);
  });
});

describe('a sick card', () => {
  test('is quarantined for a fatal Xid, once', async () => {
    const { keeper, kernel, state } = keeperOn(twoCards());
    await keeper.refresh();
    const event = parseXid('3,1,5,-;NVRM: Xid (PCI:0000:5e:00): 79, GPU has fallen off the bus.');
    if (event !== undefined) kernel.push(event);
    await keeper.refresh();
    expect(state('x')[0]).toBe(State.FREE);
    expect(state('y')).toEqual([State.QUARANTINED, expect.stringContaining('Xid 79')]);
    expect(keeper.list()[1]).toMatchObject({ lastXid: 79 });
    await keeper.clear('y');
    await keeper.refresh();
    expect(state('y')[0], 'the log still has it').toBe(State.FREE);
  });

  test('is not quarantined for an error of the program', async () => {
    const { keeper, kernel, state } = keeperOn(twoCards());
    await keeper.refresh();
    const event = parseXid('3,1,5,-;NVRM: Xid (PCI:0000:5e:00): 31, pid=7, MMU Fault');
    if (event !== undefined) kernel.push(event);
    await keeper.refresh();
    expect(state('y')[0]).toBe(State.FREE);
    expect(keeper.list()[1]).toMatchObject({ lastXid: 31 });
  });

  test('is quarantined for new memory errors, not for those that were there', async () => {
    const driver = twoCards();
    const errors = (uncorrectedEccErrors: number) => ({ figures: { ...idleCard('x').figures, uncorrectedEccErrors } });
    change(driver, 'x', errors(3));
    const { keeper, state } = keeperOn(driver);
    await keeper.refresh();
    expect(state('x')[0]).toBe(State.FREE);
    change(driver, 'x', errors(5));
    await keeper.refresh();
    expect(state('x')).toEqual([State.QUARANTINED, 'memory errors that cannot be corrected: 5, before 3']);
    await keeper.clear('x');
    expect(state('x')[0]).toBe(State.FREE);
  });

  test('for which the driver asks for recovery cannot be cleared before that', async () => {
    const driver = twoCards();
    change(driver, 'x', { recovery: 'Reset' });
    const { keeper, state } = keeperOn(driver);
    await keeper.refresh();
    expect(await keeper.clear('x')).toMatchObject({ state: State.QUARANTINED });
    change(driver, 'x', { recovery: '' });
    await keeper.clear('x');
    expect(state('x')[0]).toBe(State.FREE);
  });

  test('that has vanished in mid-run is told with the driver’s words, the others go on', async () => {
    const driver = twoCards();
    const { keeper, state, figures, until } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['x']);
    change(driver, 'x', { processes: [processOn(7)] });
    await keeper.clear('y');
    expect(keeper.list()[0]).toMatchObject({ processes: [{ pid: 7 }] });
    expect(figures('x')).toEqual(FIGURES);
    driver.cards = driver.cards.filter(({ uuid }) => uuid !== 'x');
    driver.complaint = 'Unable to determine the device handle for GPU0: Unknown Error';
    await keeper.refresh();
    expect(state('x')).toEqual([
      State.QUARANTINED,
      'the driver does not list it any more: Unable to determine the device handle for GPU0: Unknown Error',
    ]);
    expect(keeper.list()[0]).toMatchObject({ executionId: 'a', model: 'NVIDIA H200', processes: [] });
    expect([figures('x'), figures('y')]).toEqual([[], FIGURES]);
    expect(keeper.reserve(B, ['y'])).toBeUndefined();
    keeper.release(A);
    await vi.waitFor(() => expect(keeper.list()[0]).toMatchObject({ executionId: '' }));
    expect(await keeper.clear('x')).toMatchObject({ state: State.QUARANTINED });
    driver.cards = twoCards().cards;
    driver.complaint = '';
    await keeper.clear('x');
    await until('x', State.FREE);
    expect(figures('x')).toEqual(FIGURES);
  });
});

describe('a driver that is silent', () => {
  test('puts every card out of use, until it answers', async () => {
    const driver = twoCards();
    const { keeper, state, figures } = keeperOn(driver);
    await keeper.refresh();
    driver.silence = 'nvidia-smi did not answer in time';
    await keeper.refresh();
    expect(state('x')).toEqual([State.QUARANTINED, 'nvidia-smi did not answer in time']);
    expect([keeper.capacity, figures('x'), figures('y')]).toEqual([0, [], []]);
    driver.silence = undefined;
    await keeper.refresh();
    expect([state('x')[0], figures('x')]).toEqual([State.FREE, FIGURES]);
  });

  test('does not free a card whose attempt has ended meanwhile', async () => {
    const driver = twoCards();
    const { keeper, state, until } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['x']);
    driver.silence = 'it hangs';
    keeper.release(A);
    const { looks } = driver;
    await vi.waitFor(() => expect(driver.looks).toBeGreaterThan(looks + 3));
    expect(state('x')[0]).toBe(State.QUARANTINED);
    change(driver, 'x', { processes: [processOn(7)] });
    driver.silence = undefined;
    await vi.waitFor(() => expect(state('x')[1]).toContain('has left something on it: process 7'));
    await until('y', State.FREE);
  });

  test('from the start is no card', async () => {
    const driver = twoCards();
    driver.silence = 'the driver is not loaded';
    const { keeper } = keeperOn(driver);
    await keeper.refresh();
    expect(keeper.list()).toEqual([]);
  });
});

describe('an agent that is started again', () => {
  test('knows who has which card before it has looked', async () => {
    const driver = twoCards();
    const { keeper } = keeperOn(driver);
    keeper.adopt(A, ['x']);
    change(driver, 'x', { processes: [processOn(7)] });
    await keeper.refresh();
    expect(keeper.list()[0]).toMatchObject({ state: State.RESERVED, executionId: 'a' });
    expect(keeper.reserve(B, ['x'])).toContain('in use by attempt 1 of execution a');
  });

  test.each([
    ['a card', idleCard('x'), 'x', State.FREE],
    ['a divided card', idleCard('x', { divided: true, instances: [idleInstance('MIG-1', 1)] }), 'MIG-1', State.DIVIDED],
  ])('gives %s only when it has looked at it', async (_, card, unit, after) => {
    const driver = new StandInDriver(card);
    const before = keeperOn(driver);
    await before.keeper.refresh();
    before.keeper.close();
    const { keeper, state } = keeperOn(driver, { dataDir: before.dataDir });
    // What runs on is told before the first look, and is no look.
    keeper.adopt(A, [unit]);
    expect(state('x')).toEqual([State.QUARANTINED, 'not looked at since the agent was started']);
    keeper.giveBack(A);
    for (const uuid of ['x', unit]) expect(keeper.reserve(B, [uuid])).toBeDefined();
    expect(keeper.capacity).toBe(0);
    await keeper.refresh();
    expect(state('x')[0]).toBe(after);
    expect(keeper.reserve(B, [unit])).toBeUndefined();
  });

  test('gives no card while the driver says nothing from the start', async () => {
    const driver = twoCards();
    const before = keeperOn(driver);
    await before.keeper.refresh();
    before.keeper.close();
    const answers = Promise.withResolvers<void>();
    const look = driver.look.bind(driver);
    driver.look = async () => {
      await answers.promise;
      return await look();
    };
    const { keeper } = keeperOn(driver, { dataDir: before.dataDir });
    const refreshed = keeper.refresh();
    expect(keeper.reserve(A, ['x'])).toBe('GPU x is quarantined: not looked at since the agent was started');
    answers.resolve();
    await refreshed;
    expect(keeper.reserve(A, ['x'])).toBeUndefined();
  });

  test('knows what is quarantined, what is lost, and what a card takes when idle', async () => {
    const driver = twoCards();
    const before = keeperOn(driver);
    await before.keeper.refresh();
    driver.cards = driver.cards.filter(({ uuid }) => uuid !== 'y');
    await before.keeper.clear('x');
    before.keeper.close();
    change(driver, 'x', { figures: { ...idleCard('x').figures, memoryUsedBytes: GIB } });
    const { keeper, state } = keeperOn(driver, { dataDir: before.dataDir });
    expect(state('y')[0], 'before the first look').toBe(State.QUARANTINED);
    await keeper.refresh();
    expect(keeper.list()[1]).toMatchObject({ uuid: 'y', model: 'NVIDIA H200', state: State.QUARANTINED });
    expect(state('x')[1]).toBe('in use by others than Harrier: 1024 MiB of memory (4 MiB when idle)');
  });

  test('begins anew after a boot', async () => {
    const driver = twoCards();
    const before = keeperOn(driver);
    await before.keeper.refresh();
    driver.cards = driver.cards.filter(({ uuid }) => uuid !== 'y');
    await before.keeper.clear('x');
    before.keeper.close();
    const { keeper } = keeperOn(driver, { dataDir: before.dataDir, bootId: 'another' });
    await keeper.refresh();
    expect(keeper.list().map(({ uuid, state }) => [uuid, state])).toEqual([['x', State.FREE]]);
  });
});

describe('a divided card', () => {
  function divided(): StandInDriver {
    const instances = [idleInstance('MIG-1', 1), { ...idleInstance('MIG-2', 2), index: 1 }];
    return new StandInDriver(idleCard('x', { divided: true, instances }));
  }

  test('tells no use: that is not the same as none', async () => {
    const driver = divided();
    change(driver, 'x', { figures: { ...idleCard('x').figures, utilizationRatio: undefined } });
    const { keeper, figures } = keeperOn(driver);
    await keeper.refresh();
    expect(figures('x')).toEqual(FIGURES.filter((name) => name !== 'utilizationRatio'));
  });

  test('gives its instances, and only the dirty one is quarantined', async () => {
    const driver = divided();
    const { keeper, state, until } = keeperOn(driver);
    await keeper.refresh();
    expect([state('x')[0], keeper.capacity]).toEqual([State.DIVIDED, 2]);
    expect(keeper.reserve(A, ['x'])).toContain('divided');
    expect(keeper.reserve(A, ['MIG-1'])).toBeUndefined();
    change(driver, 'x', { processes: [processOn(7, 1)] });
    keeper.release(A);
    await until('MIG-1', State.QUARANTINED);
    expect([state('MIG-2')[0], state('x')[0], keeper.capacity]).toEqual([State.FREE, State.DIVIDED, 1]);
    change(driver, 'x', { processes: [] });
    expect(await keeper.clear('MIG-1')).toMatchObject({ uuid: 'x' });
    expect(keeper.capacity).toBe(2);
  });

  /** As when `nvidia-smi -L` fails after the first question. */
  const unnamed = () => ({ instances: (divided().cards[0]?.instances ?? []).map((one) => ({ ...one, uuid: '' })) });

  test('whose instances the driver does not name keeps them, and gives none of them', async () => {
    const driver = divided();
    const { keeper, state } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['MIG-1']);
    change(driver, 'x', unnamed());
    await keeper.clear('x');
    expect(state('x')).toEqual([State.QUARANTINED, 'nvidia-smi -L does not name its MIG instances']);
    expect(keeper.list()[0]?.migInstances).toMatchObject([{ uuid: 'MIG-1', executionId: 'a' }, { uuid: 'MIG-2' }]);
    expect(keeper.reserve(B, ['MIG-2'])).toContain('does not name');
    change(driver, 'x', divided().cards[0] ?? {});
    await keeper.refresh();
    expect(keeper.reserve(B, ['MIG-2']), 'it is looked at again at once').toBeUndefined();
  });

  test('whose instances the driver does not name after an attempt is checked when it does', async () => {
    const driver = divided();
    const { keeper, state, until } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['MIG-1']);
    change(driver, 'x', { ...unnamed(), processes: [processOn(7, 1)] });
    keeper.release(A);
    const { looks } = driver;
    await vi.waitFor(() => expect(driver.looks).toBeGreaterThan(looks + 5));
    expect(keeper.reserve(B, ['MIG-1'])).toBeDefined();
    change(driver, 'x', divided().cards[0] ?? {});
    change(driver, 'x', { processes: [processOn(7, 1)] });
    await until('MIG-1', State.QUARANTINED);
    await vi.waitFor(() => expect(state('MIG-1')[1]).toContain('has left something on it: process 7'));
    expect(keeper.reserve(B, ['MIG-1'])).toContain('has left something on it: process 7');
  });

  test('whose instances the driver does not name is not cleared', async () => {
    const driver = divided();
    const { keeper, state, until } = keeperOn(driver);
    await keeper.refresh();
    keeper.reserve(A, ['MIG-1']);
    change(driver, 'x', { processes: [processOn(7, 1)] });
    keeper.release(A);
    await until('MIG-1', State.QUARANTINED);
    const [, reason] = state('MIG-1');
    change(driver, 'x', unnamed());
    await keeper.clear('MIG-1');
    expect(state('MIG-1')).toEqual([State.QUARANTINED, reason]);
  });

  test('of which the driver does not list an instance for a while is checked when it does', async () => {
    const driver = divided();
    const { keeper, until } = keeperOn(driver, { leftMs: Number.POSITIVE_INFINITY });
    await keeper.refresh();
    const instances = driver.cards[0]?.instances ?? [];
    keeper.reserve(A, ['MIG-1']);
    change(driver, 'x', { instances: instances.slice(1) });
    keeper.release(A);
    const { looks } = driver;
    await vi.waitFor(() => expect(driver.looks).toBeGreaterThan(looks + 2));
    change(driver, 'x', { instances, processes: [processOn(7, 1)] });
    await keeper.clear('x');
    expect(keeper.reserve(B, ['MIG-1'])).toContain('still being checked');
    change(driver, 'x', { processes: [] });
    await until('MIG-1', State.FREE);
  });

  test('of which an instance was had before it was known is looked at', async () => {
    const driver = divided();
    const { keeper, state } = keeperOn(driver);
    keeper.adopt(A, ['MIG-1']);
    keeper.giveBack(A);
    change(driver, 'x', { processes: [processOn(7, 1)] });
    await keeper.refresh();
    expect(state('MIG-1')).toEqual([State.QUARANTINED, expect.stringContaining('in use by others')]);
  });

  test('that is divided in another way has other instances', async () => {
    const driver = divided();
    const { keeper, state } = keeperOn(driver);
    await keeper.refresh();
    change(driver, 'x', { divided: false, instances: [] });
    await keeper.clear('x');
    expect([state('x')[0], keeper.capacity]).toEqual([State.FREE, 1]);
    expect(keeper.reserve(A, ['MIG-1'])).toBe('this agent has no GPU MIG-1');
  });
});

test('cards that the operator leaves out are told and not given', async () => {
  const { keeper, state } = keeperOn(twoCards(), { selection: new Set(['y']) });
  await keeper.refresh();
  expect(state('x')).toEqual([State.UNMANAGED, 'left out by HARRIER_AGENT_GPUS']);
  expect(keeper.reserve(A, ['x'])).toBe('GPU x is left out by HARRIER_AGENT_GPUS');
  expect([keeper.reserve(A, ['y']), keeper.capacity]).toEqual([undefined, 1]);
});

test('whose parts instances are is known when the driver has named all of them', async () => {
  const named = idleInstance('MIG-1', 1);
  const driver = new StandInDriver(idleCard('x', { divided: true, instances: [{ ...named, uuid: '' }] }));
  const { keeper } = keeperOn(driver);
  expect(keeper.knowsInstances, 'before the first look').toBe(false);
  await keeper.refresh();
  expect(keeper.knowsInstances).toBe(false);
  change(driver, 'x', { instances: [named] });
  await keeper.refresh();
  expect([keeper.knowsInstances, keeper.cardOf('MIG-1')?.uuid]).toEqual([true, 'x']);
});

test('whose part an instance is is told when it is known, also where no card comes into use by it', async () => {
  const named = idleInstance('MIG-1', 1);
  const divided = { divided: true, instances: [{ ...named, uuid: '' }] };
  const driver = new StandInDriver(idleCard('x', { ...divided, recovery: 'Reset' }), idleCard('y', divided));
  const { keeper, onChange } = keeperOn(driver);
  keeper.adopt(A, ['MIG-1']);
  await keeper.refresh();
  expect(keeper.cardOf('MIG-1')).toBeUndefined();
  onChange.mockClear();
  change(driver, 'x', { instances: [named] });
  await keeper.refresh();
  expect([keeper.cardOf('MIG-1')?.uuid, keeper.knowsInstances]).toEqual(['x', false]);
  expect(onChange).toHaveBeenCalledTimes(1);
});

test('a host without cards tells that this is known, whatever its driver has said before', async () => {
  const driver = new StandInDriver();
  driver.silence = 'nvidia-smi did not answer in time';
  const { keeper, onChange } = keeperOn(driver);
  await keeper.refresh();
  onChange.mockClear();
  driver.silence = undefined;
  await keeper.refresh();
  expect([keeper.knowsInstances, onChange.mock.calls.length]).toEqual([true, 1]);
});

test('a card that nobody knows cannot be cleared', async () => {
  const { keeper } = keeperOn(twoCards());
  expect(await keeper.clear('GPU-q')).toBeUndefined();
});
