import { create } from '@bufbuild/protobuf';
import { HardwareSchema, HostLoadSchema, Isolation_Level as Isolation } from '@harrier/shared/gen/agent';
import type { AgentMessage } from '@harrier/shared/gen/link';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Heartbeat } from './heartbeat.ts';

function setUp() {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const send = vi.fn<(message: AgentMessage) => void>();
  const changedHardware = vi.fn(() => undefined as ReturnType<typeof create<typeof HardwareSchema>> | undefined);
  const heartbeat = new Heartbeat(
    {
      load: () => create(HostLoadSchema, { spoolBytes: 1n }),
      activeExecutions: () => 2,
      changedHardware,
      isolation: () => Isolation.SANDBOX,
      stopping: () => false,
    },
    send,
  );
  onTestFinished(() => heartbeat.stop());
  return { heartbeat, send, changedHardware };
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

test('a beat carries the load and the isolation, and the hardware when it has changed', () => {
  const { heartbeat, send, changedHardware } = setUp();
  heartbeat.start(10_000);
  changedHardware.mockReturnValueOnce(create(HardwareSchema, { bootId: 'b' }));
  heartbeat.beat();
  const [first, second] = send.mock.calls.map(([{ message }]) =>
    message.case === 'heartbeat' ? message.value : undefined,
  );
  expect(first).toMatchObject({
    activeExecutions: 2,
    stopping: false,
    load: { spoolBytes: 1n },
    isolation: { level: Isolation.SANDBOX },
  });
  expect(first?.hardware).toBeUndefined();
  expect(second).toMatchObject({ hardware: { bootId: 'b' } });
});
