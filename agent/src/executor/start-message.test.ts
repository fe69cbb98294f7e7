import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { AssignmentSchema } from '@harrier/shared/gen/link';
import { Limits_Network as Network } from '@harrier/shared/gen/module';
import { expect, test } from 'vitest';
import { durationMs, type StartOptions, startMessage } from './start-message.ts';

const COMMON = {
  ref: { executionId: 'e1', attempt: 2 },
  tenant: 'acme',
  taskClass: 'cpu_long',
  traceParent: '00-1-2-01',
  inputJson: Buffer.from('{"a":1}'),
  timeout: { seconds: 1n, nanos: 500_000 },
  limits: { memoryBytes: 1n, stdoutBytes: 2n, stderrBytes: 3n, outputBytes: 4n, tmpBytes: 5n },
  env: { A: 'b' },
} as const;

const OPTIONS: StartOptions = {
  environment: undefined,
  prelude: new Uint8Array(0),
  indexHosts: ['pypi.org:443'],
};

function startOf(program: MessageInitShape<typeof AssignmentSchema>['program'], options: Partial<StartOptions> = {}) {
  const assignment = create(AssignmentSchema, { ...COMMON, ...(program && { program }) } as never);
  return startMessage(assignment, { ...OPTIONS, ...options }, 10_000);
}

const LS = { case: 'command', value: { argv: ['ls'] } } as never;

test('Python becomes code and input, with limits and context', () => {
  const value = { source: 'ä', handler: 'handler', filename: 'm.py', reuseKey: '' };
  const start = startOf({ case: 'python', value } as never);
  expect(start?.message).toEqual({
    type: 'start',
    execution: 'e1',
    attempt: 2,
    tenant: 'acme',
    about: { task_class: 'cpu_long', environment: 'inline', trace_parent: '00-1-2-01' },
    kind: 'python',
    handler: 'handler',
    filename: 'm.py',
    code_bytes: 2,
    input_bytes: 7,
    env: { A: 'b' },
    timeout_ms: 1001,
    max_disconnect_ms: 0,
    grace_ms: 2000,
    reuse_key: null,
    limits: {
      memory_bytes: 1,
      cpu: 0,
      stdout_bytes: 2,
      stderr_bytes: 3,
      result_bytes: 4,
      tmp_bytes: 5,
      processes: 512,
    },
    context: { execution_id: 'e1', attempt: 2, tenant: 'acme', deadline: 11.001 },
  });
  expect(Buffer.concat(start?.body ?? []).toString()).toBe('ä{"a":1}');
});

test('a command gets the input alone', () => {
  const start = startOf({ case: 'command', value: { argv: ['ls', '-l'] } } as never);
  expect(start?.message).toMatchObject({ kind: 'command', argv: ['ls', '-l'], input_bytes: 7 });
  expect(Buffer.concat(start?.body ?? []).toString()).toBe('{"a":1}');
});

test('source text in another language goes to the program that runs it', () => {
  const value = { language: 'nodejs', source: 'ä', handler: 'run', filename: 'm.js' };
  const scriptCommand = (memoryBytes: number) => ['node', `--memory=${memoryBytes}`];
  const start = startOf({ case: 'script', value } as never, { scriptCommand });
  const script = { kind: 'script', argv: ['node', '--memory=1'], handler: 'run', filename: 'm.js', code_bytes: 2 };
  expect(start?.message).toMatchObject({ ...script, input_bytes: 7, reuse_key: null });
  expect(Buffer.concat(start?.body ?? []).toString()).toBe('ä{"a":1}');
  expect(startOf({ case: 'script', value } as never)).toBeUndefined();
});

test('what was prepared goes with it, and what the preparation wrote stands before code and input', () => {
  const environment = { key: 'venv-1', python: '/environment/bin/python' };
  const prelude = Buffer.from('Installing…');
  const start = startOf(LS, { environment, prelude });
  expect(start?.message).toMatchObject({ environment, prelude_bytes: prelude.length });
  expect(Buffer.concat(start?.body ?? []).toString()).toBe('Installing…{"a":1}');
});

test('limits of processors and processes are passed on', () => {
  const assignment = create(AssignmentSchema, { program: LS, limits: { cpu: 0.5, processes: 7 } });
  expect(startMessage(assignment, OPTIONS)?.message.limits).toMatchObject({ cpu: 0.5, processes: 7 });
});

test.each([
  [Network.NETWORK_UNSPECIFIED, undefined],
  [Network.NONE, undefined],
  [Network.INDEX, { mode: 'hosts', hosts: ['pypi.org:443'] }],
  [Network.EGRESS, { mode: 'hosts', hosts: ['*.example.org', 'example.com:443'] }],
  [Network.FULL, { mode: 'full' }],
])('network %s reaches %o', (network, expected) => {
  const limits = { network, egressHosts: ['*.example.org', 'example.com:443'] };
  const assignment = create(AssignmentSchema, { program: LS, limits });
  expect(startMessage(assignment, OPTIONS)?.message.network).toEqual(expected);
});

test('a program that this agent does not know is not started', () => {
  expect(startOf(undefined)).toBeUndefined();
});

test('durations are milliseconds', () => {
  expect(durationMs(undefined)).toBe(0);
  expect(durationMs({ seconds: 86_400n, nanos: 1_000_000 } as never)).toBe(86_400_001);
});

test('an attempt with cards has a sandbox of its own with exactly these, above what its caller says', () => {
  const gpus = {
    uuids: ['GPU-a'],
    devices: [{ source: '/dev/nvidia3', target: '/dev/nvidia3' }],
    libraries: [{ source: '/opt/nvidia', target: '/opt/nvidia', writable: false }],
  };
  const value = { source: '', handler: 'handler', filename: 'm.py', reuseKey: 'kept' };
  const fields = { ...COMMON, env: { CUDA_VISIBLE_DEVICES: '0,1,2' }, program: { case: 'python', value } };
  const assignment = create(AssignmentSchema, { ...fields, gpuUuids: ['GPU-a'] } as never);
  const environment = { key: 'venv-1', python: '/v/bin/python', binds: [], variables: { V: '1' }, preload: ['torch'] };
  const message = startMessage(assignment, { ...OPTIONS, environment, gpus })?.message;
  expect(message).toMatchObject({
    gpus: ['GPU-a'],
    reuse_key: null,
    env: { CUDA_VISIBLE_DEVICES: 'GPU-a', NVIDIA_VISIBLE_DEVICES: 'GPU-a' },
    environment: {
      key: 'gpu-e1-2',
      python: '/v/bin/python',
      binds: gpus.libraries,
      variables: { V: '1', LD_LIBRARY_PATH: '/opt/nvidia' },
      preload: ['torch'],
      devices: gpus.devices,
    },
  });
  expect(startMessage(assignment, OPTIONS)?.message.environment, 'where it sees the cards anyway').toBeUndefined();
});
