import { rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { DockerEngine, EngineUnavailableError } from './engine.ts';

const FACTS = {
  OSType: 'linux',
  ServerVersion: '1',
  NCPU: 3,
  DockerRootDir: '/srv/docker',
  SecurityOptions: ['name=apparmor', 'name=seccomp,profile=x'],
};

/** What answers on the socket; engines that work are in test/e2e/docker*.test.ts. */
async function listen(path: string, answer: RequestListener): Promise<Server> {
  const server = createServer(answer).listen(path);
  onTestFinished(() => server.closeAllConnections());
  onTestFinished(() => void server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  return server;
}

function engineOf(info: object): RequestListener {
  return (request, response) => {
    if (request.url?.startsWith('/info'))
      response.setHeader('content-type', 'application/json').end(JSON.stringify(info));
    else response.writeHead(200).flushHeaders();
  };
}

function open(socketPath: string): { engine: DockerEngine; opened: Promise<void> } {
  const engine = new DockerEngine({ socketPath, logger: silentLogger() });
  onTestFinished(() => engine.close());
  return { engine, opened: engine.open() };
}

test('no engine is a reason, not an error', async () => {
  const path = join(tempDir(), 'docker.sock');
  const { engine, opened } = open(path);
  await opened;
  expect(engine.unavailable()).toBe(`no Docker engine answers at ${path}`);
  expect(() => engine.docker).toThrow(EngineUnavailableError);
});

test.each([
  [{ ...FACTS, OSType: 'windows' }, 'the engine runs windows containers'],
  [{ ...FACTS, SecurityOptions: [] }, 'the engine has no seccomp'],
])('an engine that cannot confine code is not used: %o', async (info, reason) => {
  const path = join(tempDir(), 'docker.sock');
  await listen(path, engineOf(info));
  const { engine, opened } = open(path);
  await opened;
  expect(engine.unavailable()).toBe(`the Docker engine at ${path} cannot be used: ${reason}`);
});

test('an engine that hangs does not keep the agent from starting', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const path = join(tempDir(), 'docker.sock');
  const asked = Promise.withResolvers<void>();
  await listen(path, () => asked.resolve());
  const { engine, opened } = open(path);
  await asked.promise;
  await vi.advanceTimersByTimeAsync(60_000);
  await opened;
  expect(engine.unavailable()).toContain('no answer in time');
});

test('an engine that ends is noticed at once, and so is its return', async () => {
  const path = join(tempDir(), 'docker.sock');
  const server = await listen(path, engineOf(FACTS));
  const { engine, opened } = open(path);
  await opened;
  const told = { version: '1', cpus: 3, appArmor: true, dataDir: '/srv/docker', runtimes: [], gpus: undefined };
  expect(engine.facts).toEqual(told);
  const { lost } = engine;
  const change = () => new Promise<void>((resolve) => engine.onChange(resolve));
  const gone = change();
  server.close();
  server.closeAllConnections();
  await gone;
  expect(engine.unavailable()).toBeDefined();
  expect(lost.reason).toBeInstanceOf(EngineUnavailableError);
  rmSync(path, { force: true });
  await listen(path, engineOf(FACTS));
  await vi.waitUntil(() => engine.unavailable() === undefined);
});

test.each([
  [{ Runtimes: { runc: {}, nvidia: {} } }, 'nvidia'],
  [{ Runtimes: { runc: {} }, DiscoveredDevices: [{ Source: 'cdi', ID: 'nvidia.com/gpu=0' }] }, 'cdi'],
  [{ Runtimes: { runc: {} }, DiscoveredDevices: [{ Source: 'cdi', ID: 'vendor.com/nic=0' }] }, undefined],
])('how containers get GPUs is what the engine tells: %o', async (info, gpus) => {
  const path = join(tempDir(), 'docker.sock');
  await listen(path, engineOf({ ...FACTS, ...info }));
  const { engine, opened } = open(path);
  await opened;
  expect(engine.facts.gpus).toBe(gpus);
  expect(engine.facts.runtimes).toEqual(Object.keys(info.Runtimes).sort());
});
