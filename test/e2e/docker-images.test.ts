import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { DockerAgent, type DockerAgentOptions } from '../support/docker-agent.ts';
import { buildImage, docker, PYTHON_IMAGE, startDockerEngine, stopDockerEngine } from '../support/docker-engine.ts';
import { DockerRegistry, REGISTRY_PASSWORD, REGISTRY_USER } from '../support/docker-registry.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const never = new AbortController().signal;

/** An image of its own for a test, so that nothing of it is in the engine. */
function ownImage(text: string): string {
  const name = `harrier-test/own:${text}`;
  buildImage(name, `FROM ${PYTHON_IMAGE}\nRUN head -c 3000000 /dev/urandom > /own && echo ${text} > /text\n`);
  onTestFinished(() => void docker('image', 'rm', '--force', name));
  return name;
}

async function registry(options: { login?: boolean } = {}): Promise<DockerRegistry> {
  const started = await DockerRegistry.start(options);
  onTestFinished(() => started.stop());
  return started;
}

/** The pull of an image, with everything that is told of it. */
function listener() {
  const told = { text: '', percents: [] as number[] };
  return {
    told,
    events: {
      onOutput: (data: Uint8Array) => {
        told.text += Buffer.from(data).toString();
      },
      onProgress: (percent: number) => void told.percents.push(percent),
    },
  };
}

async function ensure(agent: DockerAgent, name: string, rule: 'always' | 'if_missing' | 'never') {
  const { told, events } = listener();
  return { image: await agent.images.ensure(name, rule, events, never), ...told };
}

/** An agent whose images of the registry are gone with the test. */
async function startAgent(hub: DockerRegistry, options: DockerAgentOptions = {}): Promise<DockerAgent> {
  onTestFinished(() => {
    const names = docker('image', 'ls', '--format', '{{.ID}}', `${hub.address}/*`).split('\n').filter(Boolean);
    for (const id of new Set(names)) docker('image', 'rm', '--force', id);
  });
  return await DockerAgent.start(options);
}

beforeAll(() => startDockerEngine(), 300_000);

describe('a pull', () => {
  test('tells its progress, gives name, tag and digest, and is needed once', async () => {
    const hub = await registry();
    const pushed = hub.push(ownImage('one'), 'tools/one:1');
    const name = `${hub.address}/tools/one:1`;
    docker('image', 'rm', '--force', 'harrier-test/own:one');
    const agent = await startAgent(hub);
    const { image, text, percents } = await ensure(agent, name, 'if_missing');
    expect(image.lock).toBe(`${name}@${pushed.split('@')[1]}`);
    expect(text).toMatch(new RegExp(`^pulling ${name}\n`));
    expect(text).toMatch(/Pull complete\n/);
    expect(percents.at(-1)).toBe(100);
    expect(agent.images.held(name)).toEqual(image);
    const again = await ensure(agent, name, 'if_missing');
    expect([again.image.id, again.text]).toEqual([image.id, '']);
    const locked = await ensure(agent, image.lock, 'never');
    expect(locked.image).toMatchObject({ id: image.id, lock: image.lock });
  });

  test('goes on once for all who ask, and each is told all of it', async () => {
    const hub = await registry();
    hub.push(ownImage('two'), 'two:1');
    docker('image', 'rm', '--force', 'harrier-test/own:two');
    const agent = await startAgent(hub);
    const abort = new AbortController();
    const given = listener();
    const leaving = agent.images.ensure(`${hub.address}/two:1`, 'if_missing', given.events, abort.signal);
    const staying = [1, 2].map(() => ensure(agent, `${hub.address}/two:1`, 'if_missing'));
    abort.abort(new Error('enough'));
    await expect(leaving).rejects.toThrow('enough');
    const [first, second] = await Promise.all(staying);
    expect(first?.text).toMatch(/^pulling .*\n/);
    expect(first?.text).toBe(second?.text);
    expect(first?.image).toEqual(second?.image);
  });

  test('ALWAYS follows a tag that was moved; IF_MISSING and a digest stay', async () => {
    const hub = await registry();
    hub.push(ownImage('three'), 'moving:1');
    const name = `${hub.address}/moving:1`;
    const agent = await startAgent(hub);
    const old = (await ensure(agent, name, 'always')).image;
    hub.push(ownImage('four'), 'other:1');
    docker('tag', 'harrier-test/own:four', name);
    docker('push', name);
    docker('tag', old.id, name);
    expect((await ensure(agent, name, 'if_missing')).image.id).toBe(old.id);
    const moved = (await ensure(agent, name, 'always')).image;
    expect(moved.id).not.toBe(old.id);
    expect((await ensure(agent, old.lock, 'if_missing')).image.id).toBe(old.id);
  });

  test('of what is not there fails with the name and the reason', async () => {
    const hub = await registry();
    const agent = await startAgent(hub);
    const missing = ensure(agent, `${hub.address}/no/such:1`, 'if_missing');
    await expect(missing).rejects.toThrow(`the image ${hub.address}/no/such:1 cannot be had: `);
    await expect(ensure(agent, `${hub.address}/no/such:1`, 'never')).rejects.toThrow('pull is NEVER');
    const nowhere = ensure(agent, '127.0.0.1:1/x:1', 'if_missing');
    await expect(nowhere).rejects.toThrow(/127\.0\.0\.1:1\/x:1 cannot be had: .*connection refused/);
  });
});

describe('a registry with a login', () => {
  async function privateImage(): Promise<{ hub: DockerRegistry; name: string }> {
    const hub = await registry({ login: true });
    docker('login', '--username', REGISTRY_USER, '--password', REGISTRY_PASSWORD, hub.address);
    onTestFinished(() => void docker('logout', hub.address));
    hub.push(ownImage('five'), 'private:1');
    docker('image', 'rm', '--force', 'harrier-test/own:five');
    return { hub, name: `${hub.address}/private:1` };
  }

  test('gives its images to the credentials of the agent, which are told nowhere', async () => {
    const { hub, name } = await privateImage();
    const credentialsPath = join(directory('dc'), 'config.json');
    const auth = Buffer.from(`${REGISTRY_USER}:${REGISTRY_PASSWORD}`).toString('base64');
    writeFileSync(credentialsPath, JSON.stringify({ auths: { [hub.address]: { auth } } }));
    const agent = await startAgent(hub, { credentialsPath });
    const { image, text } = await ensure(agent, name, 'if_missing');
    expect(image.lock).toContain('@sha256:');
    expect(text).not.toContain(REGISTRY_PASSWORD);
    expect((await agent.images.resolve(name, 'always', never)).lock).toBe(image.lock);
  });

  test('refuses others, with an error that names the image', async () => {
    const { hub, name } = await privateImage();
    const agent = await startAgent(hub);
    await expect(ensure(agent, name, 'if_missing')).rejects.toThrow(new RegExp(`${name} cannot be had: .*auth`));
    const credentialsPath = join(directory('dc'), 'config.json');
    writeFileSync(
      credentialsPath,
      JSON.stringify({ auths: { [hub.address]: { username: 'x', password: 'hidden-word' } } }),
    );
    const other = await startAgent(hub, { credentialsPath });
    const refused = ensure(other, name, 'if_missing');
    await expect(refused).rejects.toThrow(`${name} cannot be had: `);
    await expect(refused).rejects.not.toThrow('hidden-word');
  });
});

test('an image is resolved without being fetched', async () => {
  const hub = await registry();
  const pushed = hub.push(ownImage('six'), 'six:1');
  docker('image', 'rm', '--force', 'harrier-test/own:six');
  const agent = await startAgent(hub);
  const name = `${hub.address}/six:1`;
  const lock = `${name}@${pushed.split('@')[1]}`;
  expect(await agent.images.resolve(name, 'if_missing', never)).toEqual({ lock, sizeBytes: 0, held: false });
  await ensure(agent, name, 'if_missing');
  expect(await agent.images.resolve(name, 'if_missing', never)).toMatchObject({ lock, held: true });
});

test('what somebody removes from the engine is not taken for present', async () => {
  const agent = await DockerAgent.start();
  const name = ownImage('seven');
  const { image } = await ensure(agent, name, 'never');
  expect(image.lock).toBe(image.id);
  docker('image', 'rm', '--force', name);
  await until('the removal to be noticed', () => agent.images.held(name) === undefined);
  await expect(ensure(agent, name, 'never')).rejects.toThrow('is not on this agent');
});

test('an engine that dies ends a pull, with the reason', async () => {
  const hub = await registry();
  hub.push(ownImage('eight'), 'eight:1');
  docker('image', 'rm', '--force', 'harrier-test/own:eight');
  const agent = await startAgent(hub);
  const { events, told } = listener();
  const started = Promise.withResolvers<void>();
  const onOutput = (data: Uint8Array) => {
    events.onOutput(data);
    started.resolve();
  };
  hub.pause();
  const pull = agent.images.ensure(`${hub.address}/eight:1`, 'if_missing', { ...events, onOutput }, never);
  pull.catch(() => {});
  await started.promise;
  onTestFinished(() => startDockerEngine());
  await stopDockerEngine('SIGKILL');
  await expect(pull, told.text).rejects.toThrow(/eight:1 cannot be had: .*Docker engine/);
  hub.resume();
  await startDockerEngine();
  await until('the engine to be found again', () => agent.engine.unavailable() === undefined);
  expect((await ensure(agent, `${hub.address}/eight:1`, 'if_missing')).image.lock).toContain('@sha256:');
});
