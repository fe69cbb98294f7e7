import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { Isolation_Level as Level } from '@harrier/shared/gen/agent';
import { WaitingConstraint_Kind as Kind, Execution_State as State } from '@harrier/shared/gen/execution';
import type { Assignment } from '@harrier/shared/gen/link';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { ControlPlane } from '../support/control-plane.ts';
import { create, get, untilState } from '../support/executions.ts';
import { code, moduleCall } from '../support/requests.ts';
import { cards, StubAgent, type StubFacts, support } from '../support/stub-agent.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const GIB = 1024n ** 3n;
const classesFile = join(directory('classes'), 'classes.yaml');
writeFileSync(
  classesFile,
  `task_classes:
  - { name: small, timeout: 5s, max_timeout: 10s, max_limits: { memory_bytes: 1GiB }, environments: [inline] }
  - { name: sized, timeout: 1m, reserve: { cpu: 2 } }
  - { name: guarded, timeout: 1m, isolation: sandbox }
`,
);
const controlPlane = await ControlPlane.start({ flags: ['--task-classes', classesFile] });
let current = controlPlane;
afterAll(() => current.stop());
const some = code('def handler(input):\n    return {}\n');

/** An agent that only executions of this test go to. */
async function agent(name: string, facts: StubFacts = {}) {
  const joined = await StubAgent.join(current, name, facts);
  onTestFinished(() => joined.leave());
  return joined;
}
const idOf = ({ ref }: Assignment) => ref?.executionId;

async function untilWaits(id: string, kind: Kind): Promise<string> {
  return await until(`execution ${id} to wait for a reason of kind ${kind}`, async () => {
    const { waitingConstraints, waitingReason } = await get(current.clients.executions, id);
    const found = waitingConstraints.find((constraint) => constraint.kind === kind);
    return found !== undefined && waitingReason.includes(found.message) ? found.message : undefined;
  });
}

test('cards are given whole, each to one execution at a time, and are known again by another control plane', async () => {
  const one = await agent('cards', { hardware: cards(3) });
  const request = { ...some, limits: { gpus: 1 }, agentSelector: 'test=cards' };
  const first = await create(current.clients.executions, request);
  const given = await one.given();
  const pair = await create(current.clients.executions, { ...request, limits: { gpus: 2, gpu: { model: 'h100' } } });
  const second = await one.given();
  expect(idOf(second)).toBe(pair);
  expect([...given.gpuUuids, ...second.gpuUuids].toSorted()).toEqual(['GPU-0', 'GPU-1', 'GPU-2']);
  expect((await get(current.clients.executions, pair)).gpuUuids).toEqual(second.gpuUuids);
  const third = await create(current.clients.executions, request);
  expect(await untilWaits(third, Kind.GPUS)).toBe('needs 1 GPU, 0 of 3 are free');

  one.leave();
  await current.stop();
  current = await ControlPlane.start({ ...current.options, dataDirectory: current.dataDirectory });
  const held = [given, second].flatMap(({ ref }) => (ref === undefined ? [] : [{ ref }]));
  const back = await StubAgent.join(current, 'cards', { hardware: cards(3), held }, one.identity);
  onTestFinished(() => back.leave());
  await untilWaits(third, Kind.GPUS);
  back.end(given);
  const next = await back.given();
  expect({ id: idOf(next), gpus: next.gpuUuids }).toEqual({ id: third, gpus: given.gpuUuids });
  expect(first).toBe(idOf(given));
  const { agents } = await current.clients.agents.listAgents({});
  expect(agents.find(({ name }) => name === 'cards')?.reserved?.gpus).toBe(3);
});

test('an execution in front that no card is free for keeps none waiting that needs none', async () => {
  const one = await agent('mixed', { hardware: cards(1) });
  const { executions } = current.clients;
  const gpu = { ...some, taskClass: 'gpu', agentSelector: 'test=mixed' };
  await create(executions, gpu);
  const holder = await one.given();
  expect(holder.gpuUuids).toEqual(['GPU-0']);
  for (let n = 0; n < 20; n++) await create(executions, { ...gpu, priority: 10 });
  const plain = await create(executions, { ...some, agentSelector: 'test=mixed' });
  expect(idOf(await one.given())).toBe(plain);
});

test('what was asked for of processors and memory is reserved, what was not is not, but for what the class says', async () => {
  const one = await agent('sized', { capacity: { cpu: 4, memoryBytes: 4n * GIB } });
  const { executions } = current.clients;
  const request = { ...some, agentSelector: 'test=sized' };
  for (let n = 0; n < 4; n++) await create(executions, request);
  for (let n = 0; n < 4; n++) await one.given();
  await create(executions, { ...request, limits: { cpu: 1.5, memoryBytes: 3n * GIB } });
  const first = await one.given();
  const large = await create(executions, { ...request, limits: { memoryBytes: 2n * GIB } });
  expect(await untilWaits(large, Kind.MEMORY)).toBe('needs 2 GiB of memory, 1 GiB of 4 GiB are free');
  await create(executions, { ...request, taskClass: 'sized' });
  await one.given();
  const sized = await create(executions, { ...request, taskClass: 'sized' });
  expect(await untilWaits(sized, Kind.CPU)).toBe('needs 2 processors, 0.5 of 4 are free');
  const huge = await create(executions, { ...request, limits: { cpu: 5 } });
  expect(await untilWaits(huge, Kind.CPU)).toBe('needs 5 processors, it has 4');
  const { waitingConstraints } = await get(executions, huge);
  expect(waitingConstraints.find(({ agentName }) => agentName === 'sized')?.permanent).toBe(true);
  one.end(first);
  const next = [await one.given(), await one.given()].map(idOf);
  expect(next.toSorted()).toEqual([large, sized].toSorted());
});

test('a job of Slurm takes no slot, and waits for the cluster', async () => {
  const facts = { slots: 1, environments: support('inline', 'slurm'), capacity: { slurmJobs: 2 } };
  const one = await agent('login', facts);
  const { executions } = current.clients;
  const request = { ...some, agentSelector: 'test=login' };
  await create(executions, request);
  await one.given();
  const job = { ...request, taskClass: 'gpu_slurm', slurm: { partition: 'long' } };
  await create(executions, job);
  const given = await one.given();
  expect(given).toMatchObject({ slurm: { partition: 'long' }, taskClass: 'gpu_slurm' });
  expect(given.timeout).toBeUndefined();
  await create(executions, { ...request, slurm: { time: durationFromMs(48 * 3_600_000) } });
  expect((await one.given()).slurm?.time?.seconds).toBe(172_800n);
  const third = await create(executions, job);
  expect(await untilWaits(third, Kind.SLOTS)).toBe('all 2 jobs of Slurm that it may have are there');
  const unavailable = { slurm: 'the controller does not answer' };
  one.link.send({ case: 'heartbeat', value: { environments: { available: ['inline'], unavailable } } });
  expect(await untilWaits(third, Kind.ENVIRONMENT)).toBe('no Slurm: the controller does not answer');
  one.end(given);
  one.link.send({ case: 'heartbeat', value: { environments: facts.environments } });
  expect(idOf(await one.given())).toBe(third);
});

test('only so many executions of a module, and with a key, are under way at once', async () => {
  const one = await agent('few', { slots: 20 });
  const { executions, modules } = current.clients;
  const concurrency = { maxActive: 2 };
  const module = { name: 'few', version: '1.0.0', code: some.target.value.source, concurrency };
  await modules.createModule({ module: { ...module, agentSelector: 'test=few' } });
  const ids = await Promise.all(Array.from({ length: 5 }, () => create(executions, moduleCall('few'))));
  const begun = [await one.given(), await one.given()];
  const waiting = ids.find((id) => !begun.map(idOf).includes(id)) ?? '';
  expect(await untilWaits(waiting, Kind.CONCURRENCY)).toBe(
    '2 executions of the module "few" are under way, at most 2 may be',
  );
  // Others are not concerned.
  const keyed = { ...some, agentSelector: 'test=few', concurrency: { key: 'k', maxActive: 1 } };
  const first = await create(executions, keyed);
  expect(idOf(await one.given())).toBe(first);
  const second = await create(executions, keyed);
  await untilWaits(second, Kind.CONCURRENCY);
  for (const at of begun) {
    one.end(at);
    expect(ids).toContain(idOf(await one.given()));
  }
});

test('one that waits for all cards gets them, although others that need one each keep coming', async () => {
  const one = await agent('crowded', { hardware: cards(2) });
  const { executions } = current.clients;
  const small = { ...some, taskClass: 'gpu', agentSelector: 'test=crowded' };
  await create(executions, small);
  const running = [await one.given()];
  const large = await create(executions, { ...small, limits: { gpus: 2 } });
  const crowd = await Promise.all(Array.from({ length: 300 }, () => create(executions, small)));
  const last = crowd.toSorted().at(-1) ?? '';
  let kept = '';
  const turned = untilWaits(last, Kind.TURN).then((message) => {
    kept = message;
  });
  let next = one.given();
  while (kept === '') {
    const given = await Promise.race([next, turned]);
    if (given === undefined) break;
    running.push(given);
    next = one.given();
    const oldest = running.length > 1 ? running.shift() : undefined;
    if (oldest !== undefined) one.end(oldest);
  }
  expect(kept).toBe(`what is free is kept for ${large}, which waits for longer`);
  for (const left of running) one.end(left);
  const given = await next;
  expect({ id: idOf(given), gpus: given.gpuUuids.toSorted() }).toEqual({ id: large, gpus: ['GPU-0', 'GPU-1'] });
});

test.each([
  [{ taskClass: 'none' }, 'task_class', /there is no task class "none"; choose one of cpu_short, cpu_long, gpu/],
  [{ taskClass: 'small', timeout: durationFromMs(11_000) }, 'timeout', /11 s is longer than the 10 s/],
  [{ taskClass: 'small', limits: { memoryBytes: 2n * GIB } }, 'limits.memory_bytes', /task class "small"/],
  [{ limits: { gpus: 2, gpu: { migProfile: '1g.10gb' } } }, 'limits.gpus', /only one MIG instance/],
  [{ slurm: {}, limits: { gpu: { model: 'a100' } } }, 'limits.gpu', /slurm\.gres/],
  [{ concurrency: { maxActive: 1 } }, 'concurrency.key', /is needed/],
])('case %#: what cannot be is refused with its field', async (fields, field, problem) => {
  const refused = current.clients.executions.createExecution({ ...some, ...fields });
  await expect(refused).rejects.toMatchObject({ code: Code.InvalidArgument, message: expect.stringMatching(problem) });
  await expect(refused).rejects.toMatchObject({ message: expect.stringContaining(field) });
});

test('a class that wants a sandbox is for an agent as long as it has one', async () => {
  const one = await agent('guarded', { isolation: { level: Level.SANDBOX } });
  const { agents, executions } = current.clients;
  const tell = async (level: Level) => {
    one.link.send({ case: 'heartbeat', value: { number: 0n, isolation: { level } } });
    await until(`the isolation to be ${level}`, async () => {
      const answer = await agents.getAgent({ id: one.identity.agentId });
      return answer.agent?.isolation?.level === level;
    });
  };
  const request = { ...some, taskClass: 'guarded', agentSelector: 'test=guarded' };
  const first = await create(executions, request);
  expect(idOf(await one.given())).toBe(first);

  await tell(Level.NONE);
  const second = await create(executions, request);
  expect(await untilWaits(second, Kind.ENVIRONMENT)).toMatch(/without a sandbox/);
  const any = await create(executions, { ...some, agentSelector: 'test=guarded' });
  expect(idOf(await one.given())).toBe(any);

  await tell(Level.SANDBOX);
  expect(idOf(await one.given())).toBe(second);
});

test('an image is no job of Slurm', async () => {
  const target = { case: 'image', value: { image: 'some' } } as const;
  const refused = current.clients.executions.createExecution({ target, taskClass: 'gpu_slurm' });
  await expect(refused).rejects.toMatchObject({ message: expect.stringContaining('have no containers') });
});

test('a file of task classes that is wrong is told with its lines, and nothing starts', async () => {
  const file = join(directory('classes'), 'wrong.yaml');
  writeFileSync(file, 'task_classes:\n  - { name: a, timeout: soon }\n  - { name: b, weight: 0 }\n');
  const wrong = ControlPlane.start({ flags: ['--task-classes', file] });
  await expect(wrong).rejects.toThrow(/wrong\.yaml:2:25: .*timeout.*wrong\.yaml:3:24: .*weight/s);
});

test('an agent that is away is named as such', async () => {
  const one = await StubAgent.join(current, 'away');
  one.leave();
  const id = await create(current.clients.executions, { ...some, agentSelector: 'test=away' });
  await untilState(current.clients.executions, id, State.PENDING);
  const constraint = await until('the agent to be away', async () => {
    const { waitingConstraints } = await get(current.clients.executions, id);
    return waitingConstraints.find(({ agentName, kind }) => agentName === 'away' && kind === Kind.OFFLINE);
  });
  expect(constraint.message).toMatch(/^not linked since /);
});
