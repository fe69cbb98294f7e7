import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { nodejsCode, pythonCode, pythonCommand } from './subjects.ts';

const MIB = 1024 * 1024;
const isRoot = process.getuid?.() === 0;
/** A mount namespace without control groups, as a host has that lets nobody make any. */
const WITHOUT_GROUPS = ['unshare', isRoot ? '-m' : '-Urm', 'sh', '-c', 'mount -t tmpfs none "$0" && exec "$@"'];

const stack = await startStack({ agents: [{ wrapper: [...WITHOUT_GROUPS, '/sys/fs/cgroup'] }] });
const { executions } = stack;

test('the isolation that is reported names no limit that holds for a call as a whole', async () => {
  const { agents } = await stack.clients.agents.listAgents({});
  expect(agents).toMatchObject([{ isolation: { level: 2, cgroupLimits: [] } }]);
});

// Of the others the probe of memory alone depends on control groups.
test.each([nodejsCode(), pythonCommand()])('memory of each process of $name is limited', async (subject) => {
  const execution = await execute(executions, {
    target: subject.target('probe') as never,
    inputForm: { case: 'inputJson', value: JSON.stringify({ what: 'memory_bomb' }) },
    limits: { memoryBytes: BigInt(128 * MIB), processes: 64 } as never,
  });
  expect(execution.state).toBe(State.FAILED);
  expect(subject.outOfMemory.map((code) => Code[code])).toContain(execution.error?.code);
});

testProbes(stack, pythonCode('inline without control groups'));
