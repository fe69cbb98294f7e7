import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { directory } from '../support/workspace.ts';

const MIB = 1024 * 1024;
/** Of the disk that one agent keeps its environments on: room for the tools of builds and a few small environments. */
const DISK_MIB = 256;
const FREE_MIB = 64;
const environments = directory('disk');
const small = {
  name: 'small',
  labels: { disk: 'small' },
  // A disk of its own, in a mount namespace that ends with the agent and its launcher.
  wrapper: [
    ...['unshare', process.getuid?.() === 0 ? '-m' : '-Urm', 'sh', '-c'],
    `mount -t tmpfs -o size=${DISK_MIB}m,mode=711 none "$0" && exec "$@"`,
    environments,
  ],
  env: { HARRIER_AGENT_ENVIRONMENTS_DIR: environments, HARRIER_AGENT_MIN_FREE_BYTES: String(FREE_MIB * MIB) },
};
const stack = await startStack({ agents: [small] });
const { executions } = stack;

/** The file that fills the disk, as the agent has it. */
function filler(): string {
  return join(`/proc/${stack.agents[0]?.program.pid}/root`, environments, 'filler');
}

const inVenv = (requirement: string, agentSelector = 'disk=small') => ({
  target: {
    case: 'code' as const,
    value: {
      source: 'def handler(input):\n    return {}\n',
      environment: { kind: { case: 'venv' as const, value: { requirements: [requirement] } } },
    },
  },
  agentSelector,
});
const SIX = 'six==1.17.0';
const NO_ROOM = /^small: no room for environments: \d+ MiB free of 64 MiB needed$/;

test('without room what is there is used, and what is not is refused until there is room again', async () => {
  expect(await execute(executions, inVenv(SIX))).toMatchObject({ state: State.SUCCEEDED });
  writeFileSync(filler(), Buffer.alloc((DISK_MIB - FREE_MIB) * MIB));
  expect(await execute(executions, inVenv(SIX))).toMatchObject({ state: State.SUCCEEDED });
  const refused = await execute(executions, inVenv('idna==3.10'));
  expect(refused).toMatchObject({ state: State.FAILED, error: { code: Code.ENVIRONMENT_FAILED } });
  expect(refused.error?.message).toMatch(NO_ROOM);
  // It was never accepted.
  expect(refused.phases?.prepareMs ?? 0).toBe(0);
  rmSync(filler());
  expect(await execute(executions, inVenv('idna==3.10'))).toMatchObject({ state: State.SUCCEEDED });
});

test('an agent that has room takes what another one has refused', async () => {
  writeFileSync(filler(), Buffer.alloc((DISK_MIB - FREE_MIB) * MIB));
  await stack.addAgent({ name: 'large' });
  const id = await stack.idOf('large');
  for (let n = 0; n < 3; n++) {
    expect(await execute(executions, inVenv('toolz==1.0.0', ''))).toMatchObject({
      state: State.SUCCEEDED,
      agentId: id,
    });
  }
  rmSync(filler());
});
