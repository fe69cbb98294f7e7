import { fromJson } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { AGENT_FAILPOINTS, CONTROL_PLANE_FAILPOINTS } from '@harrier/shared';
import { ExecutionError_Code as ErrorCode } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { ScheduleFiring_State as FiringState } from '@harrier/shared/gen/schedule';
import { WorkflowRun_State as RunState, WorkflowSchema } from '@harrier/shared/gen/workflow';
import { afterAll, expect, test } from 'vitest';
import type { Clients } from '../support/clients.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { finished, storedLog } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { code } from '../support/requests.ts';
import { firingsOf, schedule, untilFirings } from '../support/schedules.ts';
import { startStack } from '../support/stack.ts';
import { until, within } from '../support/wait.ts';
import { ended } from '../support/workflows.ts';

// `npm run faults` comes to a few of the failpoints, in the middle of everything; here each one has its turn.

/** For some fifteen starts. */
const ALL_MS = 600_000;
/** From the request for a schedule to its only time. */
const ONCE_MS = 5_000;

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const stack = await startStack({ controlPlane: { databaseUrl: postgres.url } });
const [agent] = stack.agents;
if (agent === undefined) throw new Error('there is no agent');

/** Prints a line in each attempt, and fails in the first. */
const FLAKY = `
def handler(input, context):
    print("attempt", context.attempt)
    if context.attempt < 2:
        raise RuntimeError("not yet")
    return {"attempt": context.attempt}
`;
const NODE = 'def handler(input):\n    print("node")\n    return {"done": True}\n';
const WORKFLOW = { name: 'one', version: '1.0.0', nodes: [{ id: 'only', run: { code: { source: NODE } } }] };
await stack.clients.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, WORKFLOW) });

/** Asks until there is an answer, as callers do whose server dies. */
async function insist<T>(what: string, call: (clients: Clients) => Promise<T>): Promise<T> {
  const { answer } = await until(what, async () => {
    try {
      return { answer: await call(stack.clients) };
    } catch (error) {
      const { code: failure } = ConnectError.from(error);
      // A connection that ends in the middle of a call: nobody knows what became of it.
      if ([Code.Unavailable, Code.Aborted, Code.Internal, Code.Canceled, Code.Unknown].includes(failure))
        return undefined;
      throw error;
    }
  });
  return answer;
}

/** Asks for one of everything that commits: an execution that is tried again, a run, and a time of a schedule. */
function askForAll(key: string) {
  const name = `at-${key}`;
  const policy = { maxAttempts: 2, initialBackoff: { nanos: 1_000_000 }, codes: [ErrorCode.HANDLER_ERROR] };
  const execution = insist('an execution', ({ executions }) =>
    executions.createExecution({ ...code(FLAKY), retryPolicy: policy, idempotencyKey: key, labels: { asked: key } }),
  );
  const run = insist('a run', ({ workflows }) =>
    workflows.runWorkflow({
      name: 'one',
      idempotencyKey: key,
      labels: { key },
      inputForm: { case: 'inputJson', value: '{}' },
    }),
  );
  const planned = insist('a schedule', async ({ schedules }) => {
    // Not over yet when a busy control plane comes to it: it would be refused.
    const once = new Date(Date.now() + ONCE_MS).toISOString();
    try {
      await schedules.createSchedule({ schedule: schedule({ name, once, workflow: { name: 'one' } }) });
    } catch (error) {
      // It was made by the call whose answer was lost.
      if (ConnectError.from(error).code !== Code.AlreadyExists) throw error;
    }
  });
  return { name, answers: Promise.all([execution, run, planned]) };
}

/** Each of it ended well, once, and with all that it wrote. */
async function expectAllOnce(key: string, { name, answers }: ReturnType<typeof askForAll>): Promise<void> {
  const [{ execution }, { run }] = await answers;
  const { clients } = stack;
  const id = execution?.id ?? '';
  // Of more attempts than two, some were claimed and never begun.
  const { state, attempt: last, attempts, outputJson, error } = await finished(clients.executions, id);
  expect({ state, error, outputJson }).toEqual({
    state: State.SUCCEEDED,
    error: undefined,
    outputJson: `{"attempt":${last}}`,
  });
  const failed = attempts.filter((attempt) => attempt.error?.code === ErrorCode.HANDLER_ERROR);
  expect(failed.map(({ number }) => number)).toEqual(failed.length === 0 ? [] : [1]);
  for (const { number } of attempts) {
    const hasRun = number === last || failed.some((attempt) => attempt.number === number);
    const { stdout } = await storedLog(clients.executions, id, { attempt: number });
    expect(stdout.toString()).toBe(hasRun ? `attempt ${number}\n` : '');
  }
  const { executions: accepted } = await clients.executions.listExecutions({ labelSelector: `asked=${key}` });
  expect(accepted.map((each) => each.id)).toEqual([id]);
  const { runs: asked } = await clients.workflows.listWorkflowRuns({ labelSelector: `key=${key}` });
  expect(asked.map((each) => each.id)).toEqual([run?.id]);
  const [firing] = await untilFirings(clients, name, 'STARTED', 1);
  const { runs } = await clients.workflows.listWorkflowRuns({ labelSelector: `schedule=${name}` });
  expect(runs.map((each) => each.id)).toEqual([firing?.runId]);
  expect((await firingsOf(clients, name)).map(({ state }) => state)).toEqual([FiringState.STARTED]);
  for (const runId of [run?.id ?? '', firing?.runId ?? '']) {
    expect(await ended(clients, runId)).toMatchObject({ state: RunState.SUCCEEDED });
    const { executions: nodes } = await clients.executions.listExecutions({ labelSelector: `workflow-run=${runId}` });
    expect(nodes).toMatchObject([{ state: State.SUCCEEDED }]);
    for (const { id: node, attempt } of nodes) {
      expect((await storedLog(clients.executions, node, { attempt })).stdout.toString()).toBe('node\n');
    }
  }
}

test(
  'a control plane that ends at each of its failpoints in turn: nothing is lost or done twice',
  async () => {
    const { options, dataDirectory, port } = stack.controlPlane;
    await stack.controlPlane.stop();
    const again = { ...options, dataDirectory, port };
    const asked = new Map<string, ReturnType<typeof askForAll>>();
    for (const failpoint of CONTROL_PLANE_FAILPOINTS) {
      // What the one before it has left undone is done by this one, or by the next.
      stack.controlPlane = await ControlPlane.start({
        ...again,
        env: { ...options.env, HARRIER_FAILPOINTS: failpoint },
      });
      asked.set(failpoint, askForAll(failpoint));
      const exited = await within(`the control plane to come to ${failpoint}`, stack.controlPlane.program.exited);
      expect(exited, failpoint).toEqual({ code: null, signal: 'SIGKILL' });
    }
    stack.controlPlane = await ControlPlane.start(again);
    for (const [failpoint, all] of asked) await expectAllOnce(failpoint, all);
  },
  ALL_MS,
);

test.each(AGENT_FAILPOINTS)('an agent that ends at %s: nothing is lost or done twice', async (failpoint) => {
  const { env = {} } = agent.options;
  await agent.stop('SIGTERM');
  agent.startAgain({ env: { ...env, HARRIER_FAILPOINTS: failpoint } });
  const asked = askForAll(failpoint);
  const exited = await within(`the agent to come to ${failpoint}`, agent.program.exited);
  expect(exited).toEqual({ code: null, signal: 'SIGKILL' });
  agent.startAgain({ env });
  await expectAllOnce(failpoint, asked);
});
