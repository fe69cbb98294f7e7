// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { expect, test } from 'vitest';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { ended, getRun, python, startRun, statesOf, untilNode, workflow } from '../support/workflows.ts';

/** No agent has the label before there is one that ends what waits for it. */
const LATER = { agent_selector: 'later=yes' };

const stack = await startStack({ agents: [] });

test('executions that were accepted are followed after a restart, although they would be refused by now', async () => {
  const code = 'def handler(input):\n    return input\n';
  for (const name of ['gone', 'stricter'])
    await stack.modules.createModule({ module: { name, version: '1.0.0', code } });
  const { run: divides } = python('return input') as { run: object };
  const id = await startRun(
    stack.clients,
    workflow(
      {
        gone: { run: { module: 'gone', ...LATER } },
        stricter: { run: { module: 'stricter', ...LATER } },
        divides: { run: { ...divides, ...LATER }, input: { share: '${100 / variables.d}' } },
        turns: { signal: {}, set_variables: { d: '0' } },
      },
      [],
      { variables: { d: 5 }, output: { share: '${nodes.divides.output.share}', d: '${variables.d}' } },
    ),
  );
  const executions = async () =>
    (await stack.executions.listExecutions({ labelSelector: `workflow-run=${id}` })).executions;
  await until('three executions to be accepted', async () => (await executions()).length === 3);
  await stack.modules.deleteModule({ name: 'gone' });
  const inputSchema = { type: 'object', required: ['more'] };
  await stack.modules.createModule({ module: { name: 'stricter', version: '2.0.0', code, inputSchema } });
  await untilNode(stack.clients, id, 'turns', 'WAITING');
  await stack.clients.workflows.signalWorkflowRun({ id, path: 'turns' });
  await untilNode(stack.clients, id, 'turns', 'SUCCEEDED');
  await until('the variable to be set', async () => (await getRun(stack.clients, id)).variables?.d === 0);
  await stack.controlPlane.kill();
  stack.controlPlane = await stack.controlPlane.restarted();
  await stack.addAgent({ labels: { later: 'yes' } });
  const run = await ended(stack.clients, id);
  expect(statesOf(run), run.error?.message ?? '').toMatchObject({ '': 'SUCCEEDED' });
  const { nodes, outputJson } = await getRun(stack.clients, id);
  expect(JSON.parse(outputJson)).toEqual({ share: 20, d: 0 });
  expect(nodes.map(({ path, tries }) => `${path} ${tries}`).toSorted()).toEqual([
    'divides 1',
    'gone 1',
    'stricter 1',
    'turns 1',
  ]);
  expect(await executions()).toHaveLength(3);
});
