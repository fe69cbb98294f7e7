import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { AssignmentSchema } from '@harrier/shared/gen/link';
import { expect, test, vi } from 'vitest';
import { encodeHeader } from '../launcher/frame-codec.ts';
import type { Launcher } from '../launcher/launcher.ts';
import { ProcessExecutor } from './process-executor.ts';

function refusalOf(program: MessageInitShape<typeof AssignmentSchema>['program'], connected = true) {
  const startAttempt: Launcher['startAttempt'] = (message) => encodeHeader(message, 0).length > 0 && connected;
  const executor = new ProcessExecutor({ startAttempt: vi.fn(startAttempt) } as never as Launcher, [], () => undefined);
  const assignment = create(AssignmentSchema, { tenant: 'acme', ...(program && { program }) } as never);
  return executor.start(assignment, { start: undefined, release: () => {} }, new Uint8Array(0));
}

const LIST = { case: 'command', value: { argv: ['ls'] } } as never;

test('an attempt that the launcher takes is not refused', () => {
  expect(refusalOf(LIST)).toBeUndefined();
});

test('without a launcher another agent may take it', () => {
  expect(refusalOf(LIST, false)).toMatchObject({ error: { code: Code.SUBMIT_FAILED }, requeue: true });
});

test('a program of an unknown kind is refused for good', () => {
  expect(refusalOf(undefined)).toMatchObject({ error: { code: Code.POLICY_DENIED }, requeue: false });
});

test('arguments larger than a frame are refused for good', () => {
  const huge = { case: 'command', value: { argv: ['echo', 'x'.repeat(1024 * 1024)] } } as never;
  expect(refusalOf(huge)).toMatchObject({ error: { code: Code.INPUT_INVALID }, requeue: false });
});

test('cards that it cannot get here are a reason to try another agent', () => {
  const assignment = create(AssignmentSchema, { tenant: 'acme', program: LIST, gpuUuids: ['GPU-a'] } as never);
  const startAttempt = vi.fn<Launcher['startAttempt']>(() => true);
  const refusal = (givesGpus: boolean, attached = false) => {
    const launcher = { startAttempt, givesGpus } as never as Launcher;
    const executor = new ProcessExecutor(launcher, [], () => 'there is no device node /dev/nvidia0');
    const start = attached ? { key: 'docker-1', attached } : undefined;
    return executor.start(assignment, { start, release: () => {} }, new Uint8Array(0));
  };
  expect(refusal(false)).toMatchObject({ error: { message: expect.stringContaining('older version') }, requeue: true });
  expect(refusal(true)).toMatchObject({ error: { message: 'there is no device node /dev/nvidia0' }, requeue: true });
  expect(startAttempt).not.toHaveBeenCalled();
  expect(refusal(true, true), 'in a container that has them').toBeUndefined();
});
