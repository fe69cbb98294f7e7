import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { create, finished, get, untilState } from '../support/executions.ts';
import { code } from '../support/requests.ts';
import { TestSlurm } from '../support/slurm.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

// What has not become a job when its agent ends has not run. None of these executions may fail once.
const ONCE = { retryPolicy: { maxAttempts: 1 } };

/** An index of packages that never answers. */
const index = createServer(() => {});
await new Promise<void>((resolve) => index.listen(0, '127.0.0.1', resolve));
afterAll(() => {
  index.closeAllConnections();
  index.close();
});

const programs = directory('bin');
/** While this file is there, sbatch says that the controller does not answer. */
const away = join(programs, 'away');
writeFileSync(
  join(programs, 'sbatch'),
  `#!/bin/sh
if [ -e ${away} ]; then
  cat >/dev/null
  echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)' >&2
  exit 1
fi
exec /usr/bin/sbatch "$@"
`,
);
chmodSync(join(programs, 'sbatch'), 0o755);

const slurm = await TestSlurm.start();
afterAll(() => slurm.stop());
const stack = await startStack({
  agents: [
    {
      flags: ['--slurm-dir', directory('shared')],
      env: {
        ...slurm.environment,
        PATH: `${programs}:${process.env.PATH}`,
        HARRIER_AGENT_INDEX_URL: `http://127.0.0.1:${(index.address() as AddressInfo).port}/simple`,
      },
    },
  ],
});
const { executions } = stack;
const [agent] = stack.agents;

test('what was not submitted when the agent was killed is given back, and counts as no failure', async () => {
  writeFileSync(away, '');
  const request = { ...code('def handler(input): return {}\n'), slurm: {} as never, ...ONCE };
  const ids = await Promise.all([1, 2, 3].map(() => create(executions, request)));
  for (const id of ids) {
    await until('the wait for the controller to be told', async () =>
      /^not submitted to Slurm yet: .*Unable to contact/.test((await get(executions, id)).progress?.step ?? ''),
    );
  }
  await agent?.stop('SIGKILL');
  rmSync(away);
  agent?.startAgain();
  for (const id of ids) {
    expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 2 });
    const names = slurm.jobs().map(({ name }) => name);
    expect(names.filter((name) => name.startsWith(id))).toEqual([`${id}.2`]);
  }
});

test('an attempt whose environment was being made when the agent was killed is given back, too', async () => {
  const environment = { kind: { case: 'venv', value: { requirements: ['six==1.17.0'] } } } as never;
  const source = 'def handler(input): return {}\n';
  const id = await create(executions, {
    target: { case: 'code', value: { source, environment } },
    slurm: {} as never,
    ...ONCE,
  });
  await untilState(executions, id, State.PREPARING);
  await agent?.stop('SIGKILL');
  agent?.startAgain();
  await until('the next attempt to be prepared', async () => {
    const { attempt, state } = await get(executions, id);
    expect([State.PENDING, State.ASSIGNED, State.PREPARING]).toContain(state);
    return attempt === 2 && state === State.PREPARING;
  });
  await executions.cancelExecution({ id });
  await untilState(executions, id, State.CANCELLED);
});
