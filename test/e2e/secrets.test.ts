import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ConnectError } from '@connectrpc/connect';
import { expect, test } from 'vitest';
import { Agent } from '../support/agent.ts';
import { execute } from '../support/executions.ts';
import { http } from '../support/http.ts';
import { listProcesses } from '../support/processes.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { within } from '../support/wait.ts';

/** The most talkative that they can be. */
const env = { HARRIER_LOG_LEVEL: 'trace' };
const stack = await startStack({ controlPlane: { env }, agents: [] });
const { controlPlane, clients } = stack;

test('join tokens and API keys are in no log, no argument, no environment of a child and no error', async () => {
  const secrets = [
    controlPlane.adminKey,
    await controlPlane.joinToken(),
    await controlPlane.joinToken(),
    'hk_wrong-key-that-somebody-sent',
  ];
  const [adminKey = '', used = '', , wrong = ''] = secrets;
  const agent = await stack.addAgent({ name: 'one', joinToken: used, env });
  const answers: string[] = [];

  // What goes well, and all kinds of what does not.
  await execute(stack.executions, code('def handler(input):\n    return {}\n'));
  const reused = Agent.start({ name: 'two', serverUrl: controlPlane.url, joinToken: used, env });
  await within('the agent to give up', reused.program.exited);
  await reused.remove();
  for (const key of [wrong, used]) {
    const strangers = controlPlane.clientsWith(key);
    answers.push((await strangers.rest('GET', '/executions')).text);
    await strangers.executions
      .listExecutions({})
      .catch((error: unknown) => answers.push(String(ConnectError.from(error))));
  }
  const headers = { authorization: `Bearer ${adminKey}` };
  answers.push((await http(`${clients.url}/nothing-here`, { headers })).text);
  answers.push((await http(`${clients.url}/executions`, { headers, method: 'POST', body: '{' })).text);
  answers.push((await clients.rest('GET', '/agents')).text, (await clients.rest('GET', '/executions')).text);
  answers.push((await http(controlPlane.metricsUrl)).text, (await http(`${await agent.metricsUrl()}/metrics`)).text);

  const launcherLog = readFileSync(join(agent.dataDirectory, 'launcher.log'), 'utf8');
  const written: Record<string, string> = {
    'log of the control plane': controlPlane.program.stderr + controlPlane.program.stdout,
    'log of the agent': agent.program.stderr + agent.program.stdout,
    'log of the agent that was refused': reused.program.stderr + reused.program.stdout,
    'log of the launcher': launcherLog,
    'arguments of processes': listProcesses()
      .map(({ command }) => command)
      .join('\n'),
    'environment of the launcher and below': agent
      .launcherProcesses()
      .map(({ pid }) => environmentOf(pid))
      .join('\n'),
    answers: answers.join('\n'),
  };
  expect(written['log of the agent']).not.toBe('');
  for (const [where, text] of Object.entries(written)) {
    for (const secret of secrets) expect(text.includes(secret), `a secret in the ${where}`).toBe(false);
  }
});

test('the key of the administrator is readable by its owner alone', () => {
  expect(statSync(join(controlPlane.dataDirectory, 'admin.key')).mode & 0o777).toBe(0o600);
});

test("the agent's key is readable by its owner alone", async () => {
  const [agent] = stack.agents;
  const { readdirSync } = await import('node:fs');
  const directory = agent?.dataDirectory ?? '';
  const readable = readdirSync(directory).filter((name) => {
    const { mode } = statSync(join(directory, name));
    return /key|identity/.test(name) && (mode & 0o077) !== 0;
  });
  expect(readdirSync(directory).some((name) => /key|identity/.test(name))).toBe(true);
  expect(readable).toEqual([]);
});

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8');
  } catch {
    return '';
  }
}
