import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, finished } from '../support/executions.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';

const stack = await startStack();
const { executions } = stack;
const quick = code('def handler(input):\n    return {"done": True}\n');
/** More than one pass over the queue looks at. */
const STUCK = 4_500;
const AT_ONCE = 100;

test('an execution that can run does so, also behind thousands that no agent can take', async () => {
  let left = STUCK;
  const one = async () => {
    while (left-- > 0) await create(executions, { ...quick, agentSelector: 'none=here', priority: 1 });
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  // It has to wait for an agent of its own, which comes when all of them are in front of it.
  const id = await create(executions, { ...quick, agentSelector: 'late' });
  await stack.addAgent({ labels: { late: 'yes' } });
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED });
});
