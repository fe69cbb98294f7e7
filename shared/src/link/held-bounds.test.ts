import { create } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { HardwareSchema } from '../gen/harrier/v1/agent_pb.ts';
import { AgentMessageSchema, HelloSchema } from '../gen/harrier/v1/link_pb.ts';
import { LinkCodec } from './frame-codec.ts';
import { MAX_AGENT_SLOTS, MAX_HELD_ATTEMPTS } from './held-bounds.ts';

const ID = '0190b3a0-0000-7000-8000-000000000000';

function framesOfHello(attempts: number, otherBytes: number): number {
  const held = Array.from({ length: attempts }, () => ({
    ref: { executionId: ID, attempt: 2 ** 31 - 1 },
    finished: true,
  }));
  const hardware = create(HardwareSchema, { bootId: 'x'.repeat(otherBytes) });
  const value = create(HelloSchema, { slots: MAX_AGENT_SLOTS, held, hardware });
  return new LinkCodec('agent').encode([create(AgentMessageSchema, { message: { case: 'hello', value } })]).length;
}

test('a hello with all attempts that an agent can hold is one frame, with room for what the agent is', () => {
  expect(framesOfHello(MAX_HELD_ATTEMPTS, 512 * 1024)).toBe(1);
  expect(framesOfHello(4 * MAX_HELD_ATTEMPTS, 512 * 1024)).toBeGreaterThan(1);
});
