import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Assignment, AssignmentSchema } from '@harrier/shared/gen/link';
import { expect, onTestFinished, test, vi } from 'vitest';
import { ContainerBudget } from '../docker/container-budget.ts';
import { ImagePolicy } from '../docker/image-policy.ts';
import { Images } from '../docker/images.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { DockerExecutor, type DockerExecutorOptions } from './docker-executor.ts';
import type { AttemptEnd, ExecutorEvents, HeldByExecutor, StartRefusal } from './executor.ts';

const UNPREPARED = { start: undefined, release: () => {} };

function assignment(executionId: string): Assignment {
  return create(AssignmentSchema, {
    ref: { executionId, attempt: 1 },
    tenant: 'acme',
    taskClass: 'cpu_long',
    traceParent: '00-1-2-01',
    program: { case: 'image', value: { image: 'tool:1' } },
    limits: { memoryBytes: 1n, stdoutBytes: 1n, stderrBytes: 1n, outputBytes: 1n },
  });
}

/** An executor on an engine that answers nothing but that it is there, or what the test says. */
async function hung(places: number, dataDir = tempDir(), answer: RequestListener = () => {}) {
  const asked = Promise.withResolvers<void>();
  const { engine, end } = await standInEngine((request, response) => {
    if (request.url?.startsWith('/images/')) asked.resolve();
    answer(request, response);
  });
  const policy = new ImagePolicy(['*']);
  const images = new Images({ engine, policy, credentialsPath: undefined, logger: silentLogger() });
  const held = Promise.withResolvers<readonly HeldByExecutor[]>();
  const waiting = Promise.withResolvers<string[]>();
  const ends = new Map<string, PromiseWithResolvers<AttemptEnd>>();
  const ended = (id: string): PromiseWithResolvers<AttemptEnd> => {
    const found = ends.get(id) ?? Promise.withResolvers<AttemptEnd>();
    ends.set(id, found);
    return found;
  };
  const events: ExecutorEvents = {
    onStarted: () => {},
    onOutput: () => {},
    onProgress: () => {},
    onRecovered: (_, recovered) => {
      held.resolve(recovered);
      const isWaiting = ({ finished, started }: HeldByExecutor) => !finished && started === false;
      waiting.resolve(recovered.filter(isWaiting).map(({ executionId }) => executionId));
      link.onListed();
    },
    onLost: () => {},
    onFinished: ({ executionId }, attemptEnd) => ended(executionId).resolve(attemptEnd),
  };
  const budget = new ContainerBudget(places);
  const guard = { guard: () => {}, release: () => {} };
  const parts = { engine, images, budget, dataDir, guard };
  const refused = new Map<string, StartRefusal['error']>();
  const link = { isUp: true, asked: 0, onListed: () => {} };
  const onRefused: DockerExecutorOptions['onRefused'] = ({ executionId }, error) => {
    link.asked++;
    if (link.isUp) refused.set(executionId, error);
    return link.isUp;
  };
  const executor = new DockerExecutor({ ...parts, runners: {}, events, onRefused, logger: silentLogger() });
  executor.open();
  onTestFinished(() => executor.close());
  const start = (id: string): void => {
    expect(executor.start(assignment(id), UNPREPARED, new Uint8Array(0))).toBeUndefined();
  };
  const told = {
    held: held.promise,
    waiting: waiting.promise,
    asked: asked.promise,
    refused,
    ended: (id: string) => ended(id).promise,
  };
  return { executor, link, end, start, ...told };
}

test('a call is cancelled while the engine hangs', async () => {
  const { executor, asked, start, ended } = await hung(1);
  start('a');
  await asked;
  executor.cancel({ executionId: 'a', attempt: 1 }, 'cancel', 1000);
  expect(await ended('a')).toMatchObject({ outcome: 'cancelled' });
});

test('output counts until it is acknowledged', async () => {
  const { executor, asked } = await hung(1);
  expect(executor.start(assignment('a'), UNPREPARED, Buffer.from('pulled'))).toBeUndefined();
  await asked;
  expect(executor.unacknowledgedBytes).toBe(6);
  executor.acknowledgeOutput({ executionId: 'a', attempt: 1 }, 0, 4);
  expect(executor.unacknowledgedBytes).toBe(2);
  executor.acknowledgeOutput({ executionId: 'a', attempt: 1 }, 0, 6);
  expect(executor.unacknowledgedBytes).toBe(0);
});

test('calls that have not started are given back with the engine: those that wait for it, and those that wait for a place', async () => {
  const dataDir = tempDir();
  const { asked, end, start, refused } = await hung(1, dataDir);
  start('asks');
  start('waits');
  await asked;
  end();
  await expect.poll(() => [...refused.keys()].sort()).toEqual(['asks', 'waits']);
  const message = expect.stringMatching(/^the container cannot be started: /);
  expect(refused.get('waits')).toEqual({ code: Code.SUBMIT_FAILED, message });
  // Nothing of them is left.
  expect(readdirSync(join(dataDir, 'containers'))).toEqual([]);
});

test('what could not be given back without a link is given back over the next one, unless it was cancelled', async () => {
  const { executor, link, asked, end, start, refused, ended } = await hung(1);
  link.isUp = false;
  start('again');
  start('cancelled');
  await asked;
  end();
  await expect.poll(() => link.asked).toBe(2);
  executor.cancel({ executionId: 'cancelled', attempt: 1 }, 'cancel', 0);
  expect(await ended('cancelled')).toMatchObject({ outcome: 'cancelled' });
  link.isUp = true;
  executor.replay();
  await expect.poll(() => [...refused.keys()]).toEqual(['again']);
});

test('what a new link has told to stop again is given back, and nothing more is sent of it', async () => {
  const { executor, link, asked, refused } = await hung(1);
  link.isUp = false;
  expect(executor.start(assignment('a'), UNPREPARED, Buffer.from('pulled'))).toBeUndefined();
  await asked;
  const stop = () => executor.cancel({ executionId: 'a', attempt: 1 }, 'shutdown', 1_000);
  stop();
  Object.assign(link, { isUp: true, onListed: stop });
  const thrown = vi.fn();
  process.on('uncaughtExceptionMonitor', thrown);
  onTestFinished(() => void process.off('uncaughtExceptionMonitor', thrown));
  executor.replay();
  await expect.poll(() => [...refused.keys()]).toEqual(['a']);
  expect(thrown).not.toHaveBeenCalled();
});

/**
 * An engine that does not answer the start of a container, and tells its status when it is asked later.
 * @param status `gone`: it has none
 * @param onLook called before that is answered
 */
function startUnanswered(status: string, onLook: () => void = () => {}): RequestListener {
  let asked = false;
  return ({ method, url = '', socket }, response) => {
    const json = (code: number, body: unknown) => response.writeHead(code).end(JSON.stringify(body));
    if (url.endsWith('/start')) {
      asked = true;
      socket.destroy();
    } else if (url.includes('/attach'))
      socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
    else if (url.startsWith('/images/')) json(200, { Id: 'sha256:1', RepoDigests: [], Config: {} });
    else if (url.startsWith('/containers/create')) json(201, { Id: 'c1' });
    else if (status === 'gone') json(404, { message: 'no such container' });
    else if (url.includes('/kill')) json(409, { message: 'container c1 is not running' });
    else if (method === 'DELETE') response.writeHead(204).end();
    else if (url.includes('/json')) {
      if (asked) onLook();
      json(200, {
        Id: 'c1',
        State: { Status: status, Running: status === 'running', StartedAt: new Date().toISOString() },
      });
    }
  };
}

/** An engine that never answers the start of a container. */
function startAsked(): RequestListener {
  const answer = startUnanswered('created');
  return (request, response) => {
    if (!request.url?.endsWith('/start')) answer(request, response);
  };
}

test.each([
  ['created', 'given back'],
  ['running', Code.AGENT_LOST],
])('a container whose start the engine did not answer, and that is %s later', async (status, wanted) => {
  const { start, refused, ended } = await hung(1, tempDir(), startUnanswered(status));
  start('a');
  const end = ended('a').then(({ error }) => error?.code);
  const given = expect
    .poll(() => refused.size)
    .toBe(1)
    .then(() => 'given back');
  expect(await Promise.race([end, given])).toBe(wanted);
});

test('a call that is cancelled while nobody knows whether its container was started is cancelled, not given back', async () => {
  const cancel = () => executor.cancel({ executionId: 'a', attempt: 1 }, 'cancel', 1_000);
  const { executor, start, refused, ended } = await hung(1, tempDir(), startUnanswered('created', cancel));
  start('a');
  expect(await ended('a')).toMatchObject({ outcome: 'cancelled', error: { code: Code.CANCELLED } });
  expect(refused.size).toBe(0);
});

test('a call that waits while the agent is stopped is given back, one whose container may run is not', async () => {
  const { executor, start, refused, asked, ended } = await hung(1);
  start('asks');
  start('waits');
  await asked;
  for (const executionId of ['asks', 'waits']) executor.cancel({ executionId, attempt: 1 }, 'shutdown', 1_000);
  await expect.poll(() => [...refused.keys()].sort()).toEqual(['asks', 'waits']);
  const dataDir = tempDir();
  const other = await hung(1, dataDir, startAsked());
  other.start('a');
  await expect.poll(() => readdirSync(join(dataDir, 'containers', 'a.1'))).toContain('before.json');
  other.executor.cancel({ executionId: 'a', attempt: 1 }, 'shutdown', 1_000);
  expect(await other.ended('a')).toMatchObject({ outcome: 'cancelled' });
  expect(other.refused.size).toBe(0);
  expect(await Promise.race([ended('waits'), Promise.resolve('no end')])).toBe('no end');
});

test('what the disk does not take is refused, or is true as long as this agent lives', async () => {
  const dataDir = tempDir();
  const { executor, start, ended } = await hung(2, dataDir);
  const containers = join(dataDir, 'containers');
  start('waits');
  // Nothing can be written below a file.
  rmSync(containers, { recursive: true });
  writeFileSync(containers, '');
  expect(executor.start(assignment('refused'), UNPREPARED, new Uint8Array(0))).toMatchObject({
    error: { code: Code.SUBMIT_FAILED, message: expect.stringContaining('the agent cannot keep the attempt: ') },
    requeue: true,
  });
  executor.cancel({ executionId: 'waits', attempt: 1 }, 'cancel', 0);
  expect(await ended('waits')).toMatchObject({ outcome: 'cancelled' });
});

test('calls of a former agent that waited for their image or for a place are given back, whatever the engine has', async () => {
  const dataDir = tempDir();
  const former = await hung(1, dataDir);
  former.start('asks');
  former.start('waits');
  former.start('cancelled');
  await former.asked;
  former.executor.close();
  writeFileSync(join(dataDir, 'containers', 'cancelled.1', 'ending.json'), '"cancel"');
  const { executor, refused, ended, waiting } = await hung(1, dataDir, startUnanswered('gone'));
  expect((await waiting).sort()).toEqual(['asks', 'waits']);
  expect(await ended('cancelled')).toMatchObject({ outcome: 'cancelled' });
  await expect.poll(() => [...refused.keys()].sort()).toEqual(['asks', 'waits']);
  const message = 'the agent was restarted before it had started the container';
  expect(refused.get('waits')).toEqual({ code: Code.SUBMIT_FAILED, message });
  executor.forget({ executionId: 'cancelled', attempt: 1 });
  expect(readdirSync(join(dataDir, 'containers'))).toEqual([]);
});

test('a call of a former agent whose container the engine may have started is lost when there is none any more', async () => {
  const dataDir = tempDir();
  const former = await hung(1, dataDir, startAsked());
  former.start('a');
  await expect.poll(() => readdirSync(join(dataDir, 'containers', 'a.1'))).toContain('before.json');
  former.executor.close();
  const { refused, ended, waiting } = await hung(1, dataDir, startUnanswered('gone'));
  expect(await waiting).toEqual([]);
  expect(await ended('a')).toMatchObject({ outcome: 'failed', error: { code: Code.AGENT_LOST } });
  expect(refused.size).toBe(0);
});

test('what a former agent left and nobody can read does not keep the agent from starting, nor the rest from going on', async () => {
  const dataDir = tempDir();
  const former = await hung(1, dataDir);
  for (const id of ['no-facts', 'no-end', 'whole']) former.start(id);
  await former.asked;
  former.executor.close();
  const file = (id: string, name: string) => join(dataDir, 'containers', `${id}.1`, name);
  writeFileSync(file('no-facts', 'facts.json'), '');
  writeFileSync(file('no-end', 'end.json'), '{"outcome":"succ');
  const { held, refused } = await hung(1, dataDir);
  const about = { tenant: 'acme', taskClass: 'cpu_long', environment: 'inline', traceParent: '00-1-2-01' };
  expect(await held).toEqual([{ executionId: 'whole', attempt: 1, ...about, finished: false, started: false }]);
  await expect.poll(() => [...refused.keys()]).toEqual(['whole']);
  expect(readdirSync(join(dataDir, 'containers'))).toEqual([]);
});
