import { chmodSync, constants, copyFileSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { create, execute, finished } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

/** The only directory of the agent's PATH: what it needs of the host, and a Node.js that can be taken away. */
const tools = mkdtempSync(join(tmpdir(), 'harrier-tools-'));
chmodSync(tools, 0o755);
afterAll(() => rmSync(tools, { recursive: true }));
for (const name of ['python3', 'bwrap']) symlinkSync(`/usr/bin/${name}`, join(tools, name));
copyFileSync(process.execPath, join(tools, 'node'), constants.COPYFILE_FICLONE);

const stack = await startStack({ agents: [{ env: { PATH: tools } }] });
const call = {
  target: { case: 'code' as const, value: { source: 'exports.handler = () => ({ ok: true })', language: 'nodejs' } },
};

test('an agent whose Node.js is gone says so, and the call goes to one that has it', async () => {
  expect((await execute(stack.executions, call)).state).toBe(State.SUCCEEDED);
  rmSync(join(tools, 'node'));
  const id = await create(stack.executions, call);
  await until('the agent to say that it is gone', async () => {
    const { agents } = await stack.clients.agents.listAgents({});
    return agents[0]?.environments.includes('nodejs') === false;
  });
  await stack.addAgent();
  const execution = await finished(stack.executions, id);
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  expect(execution.output).toEqual({ ok: true });
});
