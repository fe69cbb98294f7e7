import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ManagedService, ManagedService_State as State } from '@harrier/shared/gen/agent';
import { Execution_State as ExecutionState } from '@harrier/shared/gen/execution';
import { afterAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Agent } from '../support/agent.ts';
import { DOCKER_SOCKET, docker, PYTHON_IMAGE, startDockerEngine, stopDockerEngine } from '../support/docker-engine.ts';
import { execute } from '../support/executions.ts';
import { freePort } from '../support/free-port.ts';
import { runProgram } from '../support/program.ts';
import { command } from '../support/requests.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { directory, environment, REPOSITORY } from '../support/workspace.ts';

await startDockerEngine();

/** An init process has no default signal handlers: without one of its own it would not end by SIGTERM. */
const FOREVER = '["python3", "-c", "import signal, sys; signal.signal(15, lambda *_: sys.exit()); signal.pause()"]';

const FILE = join(directory('services'), 'services.yaml');
/** A service that just runs. */
const steady = (name: string, more = ''): string =>
  `  - { name: ${name}, image: "${PYTHON_IMAGE}", networks: [none], command: ${FOREVER}${more} }\n`;

/** As a configuration manager replaces a file. */
function declare(...services: string[]): void {
  const list = services.length === 0 ? 'services: []\n' : `services:\n${services.join('')}`;
  writeFileSync(`${FILE}.new`, list);
  renameSync(`${FILE}.new`, FILE);
}

declare();

const stack: Stack = await startStack({
  agents: [
    {
      env: {
        HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
        HARRIER_SERVICES_CONFIG: FILE,
        HARRIER_ENVIRONMENT: 'staging',
      },
    },
  ],
});
const [agent] = stack.agents;
if (agent === undefined) throw new Error('there is no agent');

const containers = (service?: string, ...options: string[]): string[] => containersOf(agent, service, ...options);

function containersOf(owner: Agent, service?: string, ...options: string[]): string[] {
  const labels = [`label=harrier.agent=${owner.dataDirectory}`, 'label=harrier.role=service'];
  if (service !== undefined) labels.push(`label=harrier.service=${service}`);
  const ids = docker('ps', '--quiet', '--no-trunc', ...options, ...labels.flatMap((label) => ['--filter', label]));
  return ids === '' ? [] : ids.split('\n');
}

async function services(of = agent?.options.name): Promise<ManagedService[]> {
  const { agents } = await stack.clients.agents.listAgents({});
  return agents.find(({ name }) => name === of)?.services ?? [];
}

async function untilService(name: string, look: (service: ManagedService) => unknown): Promise<ManagedService> {
  let seen: ManagedService | undefined;
  return await until(
    `the service ${name}`,
    async () => {
      seen = (await services()).find((service) => service.name === name);
      return seen !== undefined && look(seen) ? seen : undefined;
    },
    { seen: () => seen && [seen.state, seen.message, seen.restarts] },
  );
}

const runs = ({ state }: ManagedService): boolean => state === State.RUNNING || state === State.HEALTHY;

async function metric(name: string, service: string): Promise<number> {
  const text = await (await fetch(`${await agent?.metricsUrl()}/metrics`)).text();
  const line = new RegExp(`^${name}\\{service="${service}",environment="staging"[^}]*\\} (.*)$`, 'm').exec(text);
  return Number(line?.[1] ?? 0);
}

/** Nothing is left of the test before. */
beforeEach(async () => {
  declare();
  await until('no service to be there', async () => (await services()).length === 0 && containers().length === 0);
});

/** Before the agent is stopped: it would start again what somebody else removes. */
afterAll(async () => {
  declare();
  if (agent.program.running) await until('no service to be left', () => containers(undefined, '--all').length === 0);
  const left = containers(undefined, '--all');
  if (left.length > 0) docker('rm', '--force', '--volumes', ...left);
});

test('a service is started, told, counted, and ended when it leaves the file', async () => {
  declare(steady('one'), steady('two'));
  const one = await untilService('one', runs);
  await untilService('two', runs);
  expect(one).toMatchObject({ environment: 'staging', image: PYTHON_IMAGE, restarts: 0, message: '' });
  expect(containers('one')).toEqual([one.containerId]);
  expect(await metric('harrier_agent_service_starts_total', 'one')).toBe(1);
  expect(await metric('harrier_agent_active_services', 'one')).toBe(1);
  expect(await metric('harrier_agent_docker_api_duration_seconds_count', 'one')).toBeGreaterThan(0);
  const args = ['agents', 'services', agent.options.name, '--server', stack.controlPlane.url];
  const shown = await runProgram({
    argv: [process.execPath, join(REPOSITORY, 'cli/bin/harrier.mjs'), ...args],
    env: environment({ HARRIER_API_KEY: stack.controlPlane.adminKey }),
  });
  expect([shown.code, shown.stderr]).toEqual([0, '']);
  expect(shown.stdout.split('\n')[0]).toMatch(/^one\tRUNNING\tstaging\tharrier-test\/python:3\t0\t[^\t]+\t-$/);
  declare(steady('two'));
  await until('the service to be gone', () => containers('one').length === 0);
  expect((await services()).map(({ name }) => name)).toEqual(['two']);
  await until('the end to be counted', async () => (await metric('harrier_agent_service_stops_total', 'one')) === 1);
  expect(containers('two').length).toBe(1);
});

test('a service that crashes is started again, and one that always does is tried after longer and longer waits', async () => {
  const crash = `  - { name: crash, image: "${PYTHON_IMAGE}", networks: [none], command: [sh, -c, "exit 3"] }\n`;
  declare(steady('killed'), crash);
  const before = await untilService('killed', runs);
  docker('kill', before.containerId);
  const after = await untilService('killed', (service) => runs(service) && service.restarts === 1);
  expect(after.containerId).toBe(before.containerId);
  expect(await metric('harrier_agent_service_starts_total', 'killed')).toBeGreaterThanOrEqual(2);
  await untilService('crash', ({ state, restarts }) => state === State.BACKING_OFF && restarts >= 3);
  const waiting = await untilService('crash', ({ state }) => state === State.BACKING_OFF);
  expect(waiting.message).toBe('it ended with exit code 3');
});

test('a service ends for good where its restart policy says so', async () => {
  const ending = (name: string, code: number, restart: string): string =>
    `  - { name: ${name}, image: "${PYTHON_IMAGE}", networks: [none], command: [sh, -c, "exit ${code}"], restart: ${restart} }\n`;
  declare(ending('never', 1, 'never'), ending('done', 0, 'on-failure'));
  const never = await untilService('never', ({ state }) => state === State.STOPPED);
  expect(never).toMatchObject({ message: 'it ended with exit code 1, and restart is never', restarts: 0 });
  const done = await untilService('done', ({ state }) => state === State.STOPPED);
  expect(done).toMatchObject({ message: 'it ended with exit code 0, and restart is on-failure', restarts: 0 });
});

test('a changed definition makes a new container, and leaves the others alone', async () => {
  declare(steady('changed'), steady('same'));
  const before = [await untilService('changed', runs), await untilService('same', runs)];
  declare(steady('changed', ', env: { COLOR: red }'), steady('same', ', restart: on-failure'));
  const after = await untilService('changed', (now) => runs(now) && now.containerId !== before[0]?.containerId);
  expect(docker('inspect', '--format', '{{.Config.Env}}', after.containerId)).toContain('COLOR=red');
  expect(containers('changed')).toEqual([after.containerId]);
  expect(containers('same')).toEqual([before[1]?.containerId]);
});

test('an image that cannot be had is told, and what runs goes on until its successor can', async () => {
  const missing = `  - { name: NAME, image: "harrier-test/not-there:1", pull: never }\n`;
  declare(missing.replace('NAME', 'new'), steady('old'));
  const old = await untilService('old', runs);
  const failed = await untilService('new', ({ state }) => state === State.FAILED);
  expect(failed.message).toContain('harrier-test/not-there:1 is not on this agent');
  declare(missing.replace('NAME', 'old'));
  const going = await untilService('old', ({ message }) => message !== '');
  expect(going).toMatchObject({ state: State.RUNNING, containerId: old.containerId });
  expect(going.message).toMatch(/^the former definition goes on: .*not on this agent/);
});

describe('health', () => {
  const check = 'import os, sys; sys.exit(os.path.exists("/tmp/sick"))'.replaceAll('"', '\\"');
  const times = 'interval: 1s, timeout: 10s, retries: 1';

  test('checked by a program in the container: an unhealthy one is replaced', async () => {
    declare(steady('checked', `, health: { command: [python3, -c, "${check}"], ${times} }`));
    const well = await untilService('checked', ({ state }) => state === State.HEALTHY);
    docker('exec', well.containerId, 'touch', '/tmp/sick');
    const next = await untilService(
      'checked',
      (now) => now.containerId !== well.containerId && now.state === State.HEALTHY,
    );
    expect(containers('checked')).toEqual([next.containerId]);
    expect(await metric('harrier_agent_service_stops_total', 'checked')).toBe(1);
  });

  test('or only told', async () => {
    declare(steady('told', `, health: { command: [python3, -c, "${check}"], ${times}, on_failure: report }`));
    const well = await untilService('told', ({ state }) => state === State.HEALTHY);
    docker('exec', well.containerId, 'touch', '/tmp/sick');
    const sick = await untilService('told', ({ state }) => state === State.UNHEALTHY);
    expect(sick.containerId).toBe(well.containerId);
    docker('exec', well.containerId, 'rm', '/tmp/sick');
    await untilService('told', ({ state }) => state === State.HEALTHY);
  });

  test('checked over HTTP by the agent', async () => {
    const port = await freePort();
    const serve = `command: [python3, -m, http.server, "${port}", --bind, 127.0.0.1, --directory, /tmp]`;
    const health = (path: string) =>
      `health: { http: "http://127.0.0.1:${port}${path}", ${times}, start_period: 30s, on_failure: report }`;
    const web = (path: string) =>
      `  - { name: web, image: "${PYTHON_IMAGE}", networks: [host], ${serve}, ${health(path)}, stop_grace: 1s }\n`;
    declare(web('/'));
    const well = await untilService('web', ({ state }) => state === State.HEALTHY);
    // Another path of the check needs no other container.
    declare(web('/missing').replace('start_period: 30s', 'start_period: 0s'));
    const sick = await untilService('web', ({ state }) => state === State.UNHEALTHY);
    expect(sick).toMatchObject({
      containerId: well.containerId,
      message: expect.stringContaining('/missing answers 404'),
    });
  });
});

test('a file that is wrong changes nothing, is told with its line, and the next one that is right is taken', async () => {
  declare(steady('kept'));
  const before = await untilService('kept', runs);
  declare(steady('kept'), '  - { name: bad, image: x, ports: [nonsense] }\n');
  const logged = (text: string): boolean => agent.program.logs.some(({ msg }) => String(msg).includes(text));
  await until('the problem to be logged', () => logged('services.yaml:3:36: services[1].ports[0]: must be'));
  await until('what happens to be logged', () => logged('what was before stays'));
  expect(containers()).toEqual([before.containerId]);
  declare(steady('kept'), steady('added'));
  await untilService('added', runs);
  expect(containers('kept')).toEqual([before.containerId]);
});

test('services outlive the agent, and the next one takes them up', async () => {
  declare(steady('lasting'));
  const before = await untilService('lasting', runs);
  await agent.stop();
  expect(containers('lasting')).toEqual([before.containerId]);
  // Nobody is there to start it again.
  declare(steady('lasting'), steady('meanwhile'));
  agent.startAgain();
  await untilService('meanwhile', runs);
  const after = await untilService('lasting', runs);
  expect(after).toMatchObject({ containerId: before.containerId, restarts: 0 });
  await agent.stop('SIGKILL');
  docker('kill', before.containerId);
  agent.startAgain();
  await untilService('lasting', (now) => runs(now) && now.startTime?.nanos !== before.startTime?.nanos);
  expect(containers('lasting')).toEqual([before.containerId]);
});

test('services are back when the engine is', async () => {
  declare(steady('back'));
  const before = await untilService('back', runs);
  await stopDockerEngine('SIGKILL');
  const away = await untilService('back', ({ state }) => state === State.FAILED);
  expect(away.message).toContain('Docker engine');
  await startDockerEngine();
  const after = await untilService('back', runs);
  expect(containers('back')).toEqual([after.containerId]);
  expect(after.containerId).toBe(before.containerId);
});

test('services end with the agent where the file says so', async () => {
  writeFileSync(FILE, `stop_with_agent: true\nservices:\n${steady('bound')}`);
  await untilService('bound', runs);
  await agent.stop();
  expect(containers('bound')).toEqual([]);
  agent.startAgain();
  await untilService('bound', runs);
});

test('an agent does not start with a file that is wrong', async () => {
  const path = join(directory('wrong'), 'services.yaml');
  writeFileSync(path, 'services:\n  - { name: a }\n');
  const wrong = await stack.startAgent({ name: 'wrong', flags: ['--services', path] });
  const { code } = await wrong.program.exited;
  expect(code).toBe(1);
  expect(wrong.program.stderr).toContain(`${path}:2:5: services[0].image: is missing`);
});

describe('a service that wants a part of a card, or the whole of it', () => {
  const card = 'GPU-53500000-0000-4000-8000-000000000000';
  const instance = 'MIG-53500000-0000-5000-8000-000000000003';
  const recorded = join(REPOSITORY, 'agent/src/hardware/testdata/nvidia-535-a100-mig');

  /** A host whose driver hangs until it is told to answer. */
  async function hostThatHangs(name: string, given: string, wanted: string) {
    const [bin, path] = [directory('smi'), join(directory('shared'), 'services.yaml')];
    writeFileSync(path, `services:\n${steady('model', `, gpus: [${wanted}]`)}`);
    const answers = join(bin, 'answers');
    const tool = `[ -e ${answers} ] || exec sleep 1000
case "$*" in '-q -x') cat ${recorded}.xml;; -L) cat ${recorded}.list;; *) exit 2;; esac`;
    writeFileSync(join(bin, 'nvidia-smi'), `#!/bin/sh\n${tool}\n`, { mode: 0o755 });
    const env = {
      PATH: `${bin}:${process.env.PATH}`,
      HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
      HARRIER_AGENT_GPUS: given,
    };
    const host = await stack.addAgent({ name, labels: { host: name }, flags: ['--services', path], env });
    onTestFinished(() => host.remove());
    return { host, answer: () => writeFileSync(answers, '') };
  }

  const ofModel = async (agentName: string, state: State, message: string) =>
    await until(`the model of ${agentName}: ${message}`, async () => {
      const [service] = await services(agentName);
      return service?.state === state && service.message.includes(message) && service;
    });

  test.each([
    ['instance', card, instance],
    ['card', instance, card],
  ])(
    'waits for a driver that hangs, alone, and is not started when executions get it: the %s',
    async (which, given, wanted) => {
      const name = `hangs-${which}`;
      const { host, answer } = await hostThatHangs(name, given, wanted);
      await ofModel(name, State.FAILED, 'may be given to executions: nvidia-smi has not said yet');
      const done = await execute(stack.executions, { ...command('true'), agentSelector: `host=${name}` });
      expect(done.state).toBe(ExecutionState.SUCCEEDED);
      answer();
      await ofModel(name, State.FAILED, `${wanted} is given to executions: leave out`);
      const logged = host.program.logs.find(({ msg }) => String(msg).startsWith('executions get a GPU of a service'));
      expect(logged).toMatchObject({ service: 'model', reason: expect.stringContaining(wanted) });
      expect(containersOf(host, 'model', '--all')).toEqual([]);
    },
  );

  test('is started when the driver says that executions do not get it', async () => {
    const other = 'GPU-53500000-0000-4000-8000-000000000001';
    const { host, answer } = await hostThatHangs('own', other, instance);
    onTestFinished(async () => {
      await host.stop();
      const left = containersOf(host, undefined, '--all');
      if (left.length > 0) docker('rm', '--force', '--volumes', ...left);
    });
    await ofModel('own', State.FAILED, 'may be given to executions: nvidia-smi has not said yet');
    expect(containersOf(host, 'model', '--all')).toEqual([]);
    answer();
    // The engine of the tests has no such card: it is asked to start the container, and says so.
    await until('a container to be made', () => containersOf(host, 'model', '--all').length === 1);
    const [service] = await services('own');
    expect(service?.message).not.toContain('given to executions');
  });

  test('is refused at the start when the setting itself names it', async () => {
    const path = join(directory('named'), 'services.yaml');
    writeFileSync(path, `services:\n${steady('model', `, gpus: [${instance}]`)}`);
    const env = { HARRIER_AGENT_GPUS: `GPU-1,${instance}` };
    const named = await stack.startAgent({ name: 'named', flags: ['--services', path], env });
    const { code } = await named.program.exited;
    expect(code).toBe(1);
    expect(named.program.stderr).toContain(`services[0].gpus: ${instance} is given to executions`);
  });
});
