import { WaitingConstraint_Kind as Kind, Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { create, execute, finished, get, storedLog, untilPrinted, untilState } from '../support/executions.ts';
import { http } from '../support/http.ts';
import { code } from '../support/requests.ts';
import { TestSlurm } from '../support/slurm.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const slurm = await TestSlurm.start();
afterAll(() => slurm.stop());
const stack = await startStack({ agents: [{ flags: ['--slurm-dir', directory('shared')], env: slurm.environment }] });
const { executions } = stack;

const COUNTER = `import time
def handler(input):
    for n in range(input["to"]):
        print(n, flush=True)
        time.sleep(0.1)
    return {"counted": input["to"]}
`;
const counted = (to: number) => Array.from({ length: to }, (_, n) => `${n}\n`).join('');

/** What the agent says to have that is not stored. */
async function spoolBytes(): Promise<number> {
  const { text } = await http(`${await stack.agents[0]?.metricsUrl()}/metrics`);
  return Number(/^harrier_agent_spool_bytes (\d+)$/m.exec(text)?.[1]);
}

test('the task class gpu_slurm, and the word slurm, make jobs of executions', async () => {
  for (const asked of [{ taskClass: 'gpu_slurm' }, { slurm: { partition: 'high' } as never }]) {
    const execution = await execute(executions, { ...code(COUNTER, { to: 2 }), ...asked });
    expect(execution).toMatchObject({ state: State.SUCCEEDED, stdoutTail: '0\n1\n' });
    expect(slurm.jobs().map(({ name }) => name)).toContain(`${execution.id}.1`);
  }
});

test('a venv is built in the shared directory, and the job runs in it', async () => {
  const environment = { kind: { case: 'venv', value: { requirements: ['six==1.17.0'] } } } as never;
  const source = 'import six\ndef handler(input): return {"six": six.__version__}\n';
  const execution = await execute(executions, {
    target: { case: 'code', value: { source, environment } },
    slurm: {} as never,
  });
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  expect(execution.output).toEqual({ six: '1.17.0' });
});

test('a job goes on when its agent is killed, and when the control plane is', async () => {
  const id = await create(executions, { ...code(COUNTER, { to: 150 }), slurm: {} as never });
  await untilPrinted(executions, id, '3\n');
  const [agent] = stack.agents;
  await agent?.stop('SIGKILL');
  agent?.startAgain();
  await untilPrinted(executions, id, '60\n');
  await stack.controlPlane.kill();
  await until('output that nobody stores to be counted', async () => (await spoolBytes()) > 0);
  stack.controlPlane = await stack.controlPlane.restarted();
  const execution = await finished(stack.executions, id);
  expect(execution).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  expect((await storedLog(stack.executions, id)).stdout.toString()).toBe(counted(150));
  expect(slurm.jobs().filter(({ name }) => name === `${id}.1`)).toHaveLength(1);
  await until('nothing to be left', async () => (await spoolBytes()) === 0);
});

test('while the controller is away, executions wait with that reason, and others do not', async () => {
  await slurm.end('slurmctld');
  const words = /the controller does not answer: .*Unable to contact slurm controller/;
  await until('the agent to tell', async () => {
    const { agents } = await stack.clients.agents.listAgents({});
    return words.test(agents[0]?.unavailableEnvironments.slurm ?? '');
  });
  const id = await create(stack.executions, { ...code(COUNTER, { to: 1 }), slurm: {} as never });
  const waiting = await get(stack.executions, id);
  expect(waiting).toMatchObject({ state: State.PENDING, waitingReason: expect.stringMatching(words) });
  expect(waiting.waitingConstraints).toMatchObject([{ kind: Kind.ENVIRONMENT, message: expect.stringMatching(words) }]);
  expect(await execute(stack.executions, code(COUNTER, { to: 1 }))).toMatchObject({ state: State.SUCCEEDED });
  slurm.startController();
  expect(await finished(stack.executions, id)).toMatchObject({ state: State.SUCCEEDED });
});

test('a cancel takes a job that waits out of the queue', async () => {
  await slurm.untilReady();
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=DOWN');
  const id = await create(stack.executions, { ...code(COUNTER, { to: 1 }), slurm: {} as never });
  await slurm.untilJob(`${id}.1`, 'PENDING');
  await until('the wait to be told', async () => {
    return /waits: PartitionDown/.test((await get(stack.executions, id)).progress?.step ?? '');
  });
  await stack.executions.cancelExecution({ id });
  expect(await untilState(stack.executions, id, State.CANCELLED)).toMatchObject({ stdoutTail: '' });
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=UP');
});
