import { SettingsReader } from '@harrier/shared';
import { expect, test } from 'vitest';
import { readDockerSettings } from './docker-settings.ts';

function read(values: Record<string, string>) {
  const settings = new SettingsReader(values);
  return { ...readDockerSettings(settings), problems: settings.problems };
}

test('no image is allowed unless the operator says so', () => {
  expect(read({})).toMatchObject({
    socketPath: '/run/docker.sock',
    allowedImages: [],
    credentialsPath: undefined,
    runnerImages: {},
    containerIdleMs: 300_000,
    problems: [],
  });
});

test('what is set is read; runner images are allowed with it', () => {
  const settings = read({
    HARRIER_AGENT_ALLOWED_IMAGES: 'python:3.*, ghcr.io/acme/*,',
    HARRIER_AGENT_RUNNER_IMAGES: 'python=harrier/runner-python:1,nodejs=127.0.0.1:5000/node:24',
    HARRIER_AGENT_DOCKER_CONFIG: '/etc/harrier/docker.json',
    HARRIER_AGENT_MAX_CONTAINERS: '3',
    HARRIER_AGENT_CONTAINER_IDLE_S: '7',
  });
  expect(settings).toMatchObject({
    allowedImages: ['python:3.*', 'ghcr.io/acme/*', 'harrier/runner-python:1', '127.0.0.1:5000/node:24'],
    runnerImages: { python: 'harrier/runner-python:1', nodejs: '127.0.0.1:5000/node:24' },
    credentialsPath: '/etc/harrier/docker.json',
    maxContainers: 3,
    containerIdleMs: 7000,
    problems: [],
  });
});

test.each([
  [{ HARRIER_AGENT_DOCKER_HOST: 'unix:///x/d.sock', DOCKER_HOST: 'unix:///y/d.sock' }, '/x/d.sock', 0],
  [{ DOCKER_HOST: 'unix:///y/d.sock' }, '/y/d.sock', 0],
  [{ DOCKER_HOST: 'tcp://remote:2375' }, '/run/docker.sock', 0],
  [{ HARRIER_AGENT_DOCKER_HOST: 'tcp://remote:2375' }, '/run/docker.sock', 1],
])('the engine of %o is at %s', (values, socketPath, problems) => {
  const settings = read(values as Record<string, string>);
  expect([settings.socketPath, settings.problems.length]).toEqual([socketPath, problems]);
});

test.each(['perl=x', 'python', 'python=', 'python=Not An Image'])(
  'the runner image "%s" is refused by name',
  (pair) => {
    expect(read({ HARRIER_AGENT_RUNNER_IMAGES: pair }).problems).toEqual([
      expect.stringContaining(`HARRIER_AGENT_RUNNER_IMAGES must be LANGUAGE=IMAGE`),
    ]);
  },
);
