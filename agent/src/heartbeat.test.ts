import { create } from '@bufbuild/protobuf';
import {
  HardwareSchema,
  HostLoadSchema,
  IsolationSchema,
  Isolation_Level as Level,
  type Resources,
  ResourcesSchema,
} from '@harrier/shared/gen/agent';
import { type AgentMessage, type ManagedServices, ManagedServicesSchema } from '@harrier/shared/gen/link';
import { expect, onTestFinished, test, vi } from 'vitest';
import type { Support } from './environment/environment-registry.ts';
import { Heartbeat } from './heartbeat.ts';

function setUp() {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const send = vi.fn<(message: AgentMessage) => void>();
  const changedHardware = vi.fn(() => undefined as ReturnType<typeof create<typeof HardwareSchema>> | undefined);
  const changedEnvironments = vi.fn(() => undefined as Support | undefined);
  const changedServices = vi.fn(() => undefined as ManagedServices | undefined);
  const changedCapacity = vi.fn(() => undefined as Resources | undefined);
  const heartbeat = new Heartbeat(
    {
      number: () => 7n,
      load: () => create(HostLoadSchema, { spoolBytes: 1n }),
      activeExecutions: () => 2,
      changedHardware,
      changedEnvironments,
      changedServices,
      changedCapacity,
      isolation: () => create(IsolationSchema, { level: Level.SANDBOX, cgroupLimits: ['cpu'] }),
      stopping: () => false,
    },
    send,
  );
  onTestFinished(() => heartbeat.stop());
  return { heartbeat, send, changedHardware, changedEnvironments, changedServices, changedCapacity };
}

test('beats come at once, at the interval, and on demand', () => {
  const { heartbeat, send } = setUp();
  heartbeat.beat();
  expect(send, 'not before the link is up').not.toHaveBeenCalled();
  heartbeat.start(10_000);
  expect(send).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(20_000);
  expect(send).toHaveBeenCalledTimes(3);
  heartbeat.beat();
  expect(send).toHaveBeenCalledTimes(4);
  heartbeat.stop();
  heartbeat.beat();
  vi.advanceTimersByTime(20_000);
  expect(send).toHaveBeenCalledTimes(4);
});

test('a beat carries the load and the isolation, and what else has changed', () => {
  const { heartbeat, send, changedHardware, changedEnvironments, changedServices, changedCapacity } = setUp();
  heartbeat.start(10_000);
  changedHardware.mockReturnValueOnce(create(HardwareSchema, { bootId: 'b' }));
  const environments = { available: ['inline'], unavailable: { docker: 'no engine' } };
  changedEnvironments.mockReturnValueOnce(environments);
  changedServices.mockReturnValueOnce(create(ManagedServicesSchema, { services: [{ name: 'cache' }] }));
  changedCapacity.mockReturnValueOnce(create(ResourcesSchema, { gpus: 7 }));
  heartbeat.beat();
  const [first, second] = send.mock.calls.map(([{ message }]) =>
    message.case === 'heartbeat' ? message.value : undefined,
  );
  expect(first).toMatchObject({
    activeExecutions: 2,
    stopping: false,
    load: { spoolBytes: 1n },
    isolation: { level: Level.SANDBOX, cgroupLimits: ['cpu'] },
  });
  const none = [undefined, undefined, undefined, undefined];
  expect([first?.hardware, first?.environments, first?.services, first?.capacity]).toEqual(none);
  expect(second).toMatchObject({
    hardware: { bootId: 'b' },
    environments,
    services: { services: [{ name: 'cache' }] },
    capacity: { gpus: 7 },
  });
});
