import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BACKOFF, type ContainerView, countEnd, countFailure, decide, FRESH, type RestartMemory } from './decide.ts';
import { DEFAULTS } from './read-service.ts';
import { definitionHash, type RestartRule, type ServiceDefinition } from './service-definition.ts';

function service(fields: Partial<ServiceDefinition> = {}): ServiceDefinition {
  return { ...DEFAULTS, name: 'a', image: 'image:1', ...fields };
}

const CHECK: ServiceDefinition['health'] = {
  probe: { kind: 'command', argv: ['true'] },
  intervalMs: 1,
  timeoutMs: 1,
  retries: 1,
  startPeriodMs: 0,
  onFailure: 'restart',
};

function container(fields: Partial<ContainerView> = {}): ContainerView {
  return {
    id: 'c1',
    hash: definitionHash(service()),
    status: 'running',
    exitCode: 0,
    startedAtMs: 1_000,
    endedAtMs: 0,
    health: 'none',
    ...fields,
  };
}

describe('decide', () => {
  it('creates what is missing, starts what was created, and leaves alone what runs', () => {
    expect(decide(service(), [], FRESH, 0)).toEqual({ kind: 'create' });
    expect(decide(service(), [container({ status: 'created' })], FRESH, 0)).toEqual({ kind: 'start', id: 'c1' });
    expect(decide(service(), [container()], FRESH, 0)).toEqual({ kind: 'rest' });
  });

  it.each<[RestartRule, number, 'start' | 'rest']>([
    ['always', 0, 'start'],
    ['always', 1, 'start'],
    ['on-failure', 0, 'rest'],
    ['on-failure', 1, 'start'],
    ['never', 1, 'rest'],
  ])('with restart %s and exit code %i: %s', (restart, exitCode, kind) => {
    expect(decide(service({ restart }), [container({ status: 'ended', exitCode })], FRESH, 0).kind).toBe(kind);
  });

  it('waits before it tries again what has failed', () => {
    const memory = countFailure(FRESH, 100, () => 1);
    const ended = container({ status: 'ended' });
    expect(decide(service(), [ended], memory, 100)).toEqual({ kind: 'wait', untilMs: 100 + BACKOFF.initialMs });
    expect(decide(service(), [], memory, 100).kind).toBe('wait');
    expect(decide(service(), [ended], memory, 100 + BACKOFF.initialMs).kind).toBe('start');
  });

  it('replaces what was made from another definition, and ends what is not wanted', () => {
    const old = container({ hash: 'old' });
    expect(decide(service(), [old], FRESH, 0)).toEqual({ kind: 'remove', id: 'c1', reason: 'changed' });
    expect(decide(undefined, [old], FRESH, 0)).toEqual({ kind: 'remove', id: 'c1', reason: 'unwanted' });
    expect(decide(undefined, [], FRESH, 0)).toEqual({ kind: 'rest' });
  });

  it('keeps of two containers the one that runs', () => {
    const ended = container({ id: 'c2', status: 'ended' });
    expect(decide(service(), [ended, container()], FRESH, 0)).toEqual({
      kind: 'remove',
      id: 'c2',
      reason: 'superfluous',
    });
  });

  it('lets somebody else remove a container before it makes the next one', () => {
    expect(decide(service(), [container({ hash: 'old', status: 'busy' })], FRESH, 0)).toEqual({ kind: 'rest' });
  });

  it('replaces a service that is unhealthy, unless it is only to be told or may not be started again', () => {
    const hashed = (definition: ServiceDefinition) =>
      container({ hash: definitionHash(definition), health: 'unhealthy' });
    const kindOf = (definition: ServiceDefinition) => decide(definition, [hashed(definition)], FRESH, 0).kind;
    expect(kindOf(service({ health: CHECK }))).toBe('remove');
    expect(kindOf(service({ health: { ...CHECK, onFailure: 'report' } }))).toBe('rest');
    expect(kindOf(service({ health: CHECK, restart: 'never' }))).toBe('rest');
  });
});

describe('waits between starts', () => {
  const ended = (endedAtMs: number, startedAtMs = 0) => container({ status: 'ended', startedAtMs, endedAtMs });

  it('grow up to a bound, and each end counts once', () => {
    let memory: RestartMemory = FRESH;
    const waits: number[] = [];
    for (let end = 1; end <= 10; end++) {
      memory = countEnd(memory, ended(end), 0, () => 1);
      expect(countEnd(memory, ended(end), 0, () => 1)).toBe(memory);
      waits.push(memory.retryAtMs);
    }
    expect(waits).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
  });

  it('are short again after a long run', () => {
    let memory: RestartMemory = FRESH;
    for (let end = 1; end <= 10; end++) memory = countEnd(memory, ended(end), 0, () => 1);
    expect(countEnd(memory, ended(100_000), 0, () => 1).retryAtMs).toBe(BACKOFF.initialMs);
  });

  it('do not count a container that runs', () => {
    expect(countEnd(FRESH, container(), 0)).toBe(FRESH);
  });
});

describe('the hash of a definition', () => {
  it('does not depend on the order of variables, nor on what needs no new container', () => {
    const hash = definitionHash(service({ env: { A: '1', B: '2' } }));
    const same = service({ env: { B: '2', A: '1' }, restart: 'never', pull: 'always', stopGraceMs: 1 });
    expect(definitionHash(same)).toBe(hash);
    expect(definitionHash(service({ env: { A: '1', B: '3' } }))).not.toBe(hash);
  });
});

/** An engine with containers of one service, and what may happen to them. */
class Model {
  containers: (ContainerView & { number: number })[] = [];
  definition: ServiceDefinition | undefined;
  memory: RestartMemory = FRESH;
  nowMs = 0;
  #made = 0;

  /** Takes steps until there is nothing to do; @returns the kinds of steps */
  settle(): string[] {
    const kinds: string[] = [];
    for (let step = 0; step < 100; step++) {
      const newest = this.containers[0];
      if (newest !== undefined) this.memory = countEnd(this.memory, newest, this.nowMs);
      const next = decide(this.definition, this.containers, this.memory, this.nowMs);
      if (next.kind === 'rest') return kinds;
      kinds.push(next.kind);
      if (next.kind === 'wait') {
        expect(next.untilMs).toBeGreaterThan(this.nowMs);
        this.nowMs = next.untilMs;
      } else if (next.kind === 'create') {
        if (this.definition === undefined) throw new Error('created what is not wanted');
        this.add(definitionHash(this.definition), 'created');
      } else if (next.kind === 'start') {
        expect(this.nowMs).toBeGreaterThanOrEqual(this.memory.retryAtMs);
        this.change(next.id, { status: 'running', startedAtMs: this.nowMs });
      } else {
        this.containers = this.containers.filter(({ id }) => id !== next.id);
      }
      expect(this.containers.filter(({ status }) => status === 'running').length).toBeLessThanOrEqual(this.limit);
    }
    throw new Error('it does not come to rest');
  }

  /** Several may run only when somebody else has started them. */
  limit = 1;

  add(hash: string, status: ContainerView['status']): void {
    const number = ++this.#made;
    const times = { startedAtMs: this.nowMs, endedAtMs: 0 };
    this.containers.unshift({ ...container({ id: `c${number}`, hash, status, ...times }), number });
    this.limit = Math.max(1, this.containers.filter((each) => each.status === 'running').length);
  }

  change(id: string, fields: Partial<ContainerView>): void {
    this.containers = this.containers.map((each) => (each.id === id ? { ...each, ...fields } : each));
  }
}

const event = fc.oneof(
  fc.record({ kind: fc.constant('want' as const), version: fc.integer({ min: 0, max: 2 }) }),
  fc.record({
    kind: fc.constant('rule' as const),
    restart: fc.constantFrom<RestartRule>('always', 'on-failure', 'never'),
  }),
  fc.record({ kind: fc.constant('end' as const), exitCode: fc.integer({ min: 0, max: 2 }), ranMs: fc.nat(100_000) }),
  fc.constant({ kind: 'unhealthy' as const }),
  fc.constant({ kind: 'removed' as const }),
  fc.record({ kind: fc.constant('stray' as const), hash: fc.constantFrom('other', 'same') }),
  fc.constant({ kind: 'newAgent' as const }),
);

it('comes to rest with exactly what is wanted, whatever happens to the containers', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), (events) => {
      const model = new Model();
      let version = 0;
      let restart: RestartRule = 'always';
      for (const each of events) {
        const [first] = model.containers;
        switch (each.kind) {
          case 'want':
          case 'rule':
            if (each.kind === 'want') version = each.version;
            else restart = each.restart;
            model.definition =
              version === 0 ? undefined : service({ image: `image:${version}`, restart, health: CHECK });
            model.memory = FRESH;
            break;
          case 'end': {
            const endedAtMs = (first?.startedAtMs ?? 0) + each.ranMs;
            if (first?.status === 'running') {
              model.change(first.id, { status: 'ended', exitCode: each.exitCode, endedAtMs });
            }
            break;
          }
          case 'unhealthy':
            if (first?.status === 'running') model.change(first.id, { health: 'unhealthy' });
            break;
          case 'removed':
            model.containers.shift();
            break;
          case 'stray':
            model.add(each.hash === 'same' && model.definition ? definitionHash(model.definition) : 'other', 'running');
            break;
          case 'newAgent':
            model.memory = FRESH;
        }
        model.settle();
        const [kept, ...others] = model.containers;
        expect(others).toEqual([]);
        expect(kept?.hash).toBe(model.definition === undefined ? undefined : definitionHash(model.definition));
        if (kept === undefined || kept.status === 'running') continue;
        const rests = restart === 'never' || (restart === 'on-failure' && kept.exitCode === 0);
        expect([kept.status, rests]).toEqual(['ended', true]);
      }
    }),
    { numRuns: 500 },
  );
});
