import { createServer, type RequestListener } from 'node:http';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { DockerEngine } from '../docker/engine.ts';
import { silentLogger } from './silent-logger.ts';
import { tempDir } from './temp-dir.ts';

const INFO = {
  OSType: 'linux',
  ServerVersion: '1',
  NCPU: 2,
  DockerRootDir: '/srv/docker',
  SecurityOptions: ['name=seccomp,profile=x'],
};

/** The agent's view of an engine that answers as the test says, also not at all, and can be ended. */
export async function standInEngine(answer: RequestListener): Promise<{ engine: DockerEngine; end: () => void }> {
  const path = join(tempDir(), 'docker.sock');
  const server = createServer((request, response) => {
    if (request.url?.startsWith('/info')) {
      response.setHeader('content-type', 'application/json').end(JSON.stringify(INFO));
    } else if (request.url?.startsWith('/events')) response.writeHead(200).flushHeaders();
    else answer(request, response);
  }).listen(path);
  const end = (): void => {
    server.close();
    server.closeAllConnections();
  };
  onTestFinished(end);
  await new Promise((resolve) => server.once('listening', resolve));
  const engine = new DockerEngine({ socketPath: path, logger: silentLogger() });
  onTestFinished(() => engine.close());
  await engine.open();
  return { engine, end };
}
