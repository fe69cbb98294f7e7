import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AgentRegistry, type LinkedAgent } from './agent-registry.ts';

const AGENT = 'agent';
const nobody = { set: () => undefined, delete: () => undefined };
const link = (): LinkedAgent => ({
  id: AGENT,
  name: AGENT,
  tenantId: 't',
  labels: {},
  unavailableEnvironments: {},
  environments: new Set(['inline']),
  slots: 4,
  active: 0,
  executions: 0,
  taken: undefined,
  draining: false,
  stopping: false,
  drainRequested: false,
  instanceId: 'i',
  session: 1,
  isolation: 0,
  version: '',
  hardware: new Uint8Array(),
  load: undefined,
  services: new Uint8Array(),
  lastSeenMs: 0,
  channel: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
});

/** The agent is linked anew; `stored` is what the database gives to it at that moment. */
function relink(registry: AgentRegistry, stored: Iterable<string>, before?: LinkedAgent): LinkedAgent {
  if (before !== undefined) registry.remove(before);
  const agent = link();
  registry.forgetHeldSlots(AGENT);
  for (const id of stored) registry.holdSlot(AGENT, id);
  registry.add(agent);
  return agent;
}

describe('AgentRegistry', () => {
  test('a link that is opened anew between a reservation and its insert keeps the slot taken, once', () => {
    const registry = new AgentRegistry(nobody);
    const first = relink(registry, []);
    registry.reserveSlot(AGENT, 'x');
    const second = relink(registry, [], first);
    expect(second.active).toBe(1);
    registry.holdSlot(AGENT, 'x');
    expect(second.active).toBe(1);
    registry.freeSlot(AGENT, 'x');
    registry.freeSlot(AGENT, 'x');
    expect(second.active).toBe(0);
  });

  test('a reservation that is given back while the agent has no link takes no slot of the next one', () => {
    const registry = new AgentRegistry(nobody);
    const first = relink(registry, []);
    registry.reserveSlot(AGENT, 'x');
    registry.remove(first);
    registry.freeSlot(AGENT, 'x');
    expect(relink(registry, []).active).toBe(0);
  });

  test('what ended elsewhere while the agent was away takes no slot any more', () => {
    const registry = new AgentRegistry(nobody);
    const first = relink(registry, ['x', 'y']);
    expect(first.active).toBe(2);
    expect(relink(registry, ['y'], first).active).toBe(1);
  });

  test('the slots in use are the executions that are on their way or with the agent, whatever the order of events', () => {
    const id = fc.integer({ min: 0, max: 5 }).map(String);
    const step = fc.oneof(
      fc.record({ kind: fc.constant('reserve' as const), id }),
      fc.record({ kind: fc.constant('insert' as const), id }),
      fc.record({ kind: fc.constant('assign' as const), id }),
      fc.record({ kind: fc.constant('end' as const), id }),
      fc.record({ kind: fc.constant('relink' as const), id }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const registry = new AgentRegistry(nobody);
        let agent = relink(registry, []);
        /** Each execution goes reserved → stored (in the database) → assigned → gone. */
        const live = new Map<string, 'reserved' | 'stored' | 'assigned'>();
        for (const { kind, id } of steps) {
          const stage = live.get(id);
          if (kind === 'reserve' && stage === undefined) {
            live.set(id, 'reserved');
            registry.reserveSlot(AGENT, id);
          } else if (kind === 'insert' && stage === 'reserved') {
            live.set(id, 'stored');
          } else if (kind === 'assign' && stage === 'stored') {
            live.set(id, 'assigned');
            registry.holdSlot(AGENT, id);
          } else if (kind === 'end') {
            live.delete(id);
            registry.freeSlot(AGENT, id);
          } else if (kind === 'relink') {
            const stored = [...live].filter(([, of]) => of !== 'reserved').map(([of]) => of);
            agent = relink(registry, stored, agent);
          }
          expect(agent.active).toBe(live.size);
        }
      }),
    );
  });
});
