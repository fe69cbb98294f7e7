import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, request as sendRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger, VERSION } from '@harrier/shared';
import { expect, onTestFinished, test } from 'vitest';
import { createInstallHandler } from './install-handler.ts';

const ARCHIVE = Buffer.alloc(300_000, 'harrier');
const DIGEST = createHash('sha256').update(ARCHIVE).digest('hex');
const NAME = `harrier-agent-${VERSION}-linux-x64.tar.gz`;

interface Answer {
  status: number;
  headers: Record<string, unknown>;
  body: Buffer;
}

async function serve(options: { files?: Record<string, Buffer>; publicUrl?: string } = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'harrier-install-'));
  for (const [name, content] of Object.entries(options.files ?? {})) writeFileSync(join(directory, name), content);
  const logger = createLogger({ name: 'test', level: 'silent' });
  const handler = createInstallHandler({ bundlesDirectory: directory, publicUrl: options.publicUrl, logger });
  const server = createServer((request, response) => {
    if (!handler(request, response)) response.writeHead(418).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
    rmSync(directory, { recursive: true });
  });
  const { port } = server.address() as AddressInfo;
  const get = (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const request = sendRequest({ host: '127.0.0.1', port, path, method, headers }, (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) }),
        );
      });
      request.once('error', reject).end();
    });
  return { get, directory, port };
}

test('the installer names this version, this control plane and the digest of its agent', async () => {
  const { get, port } = await serve({ files: { [NAME]: ARCHIVE } });
  const { status, body, headers } = await get('/install.sh');
  expect(status).toBe(200);
  expect(headers['cache-control']).toBe('no-store');
  const script = body.toString();
  expect(script).toContain(`\nBAKED_VERSION='${VERSION}'\n`);
  expect(script).toContain(`\nBAKED_SERVER_URL='http://127.0.0.1:${port}'\n`);
  expect(script).toContain(`\nBAKED_SHA256_X64='${DIGEST}'\n`);
  expect(script).toContain("\nBAKED_SHA256_ARM64=''\n");
});

test('an agent that is replaced has another digest', async () => {
  const { get, directory } = await serve({ files: { [NAME]: ARCHIVE } });
  await get('/install.sh');
  writeFileSync(join(directory, NAME), 'another');
  const digest = createHash('sha256').update('another').digest('hex');
  expect((await get('/install.sh')).body.toString()).toContain(`BAKED_SHA256_X64='${digest}'`);
});

test('another version is installed when it is asked for', async () => {
  const { get } = await serve({ files: { 'harrier-agent-9.9.9-linux-arm64.tar.gz': ARCHIVE } });
  const { body } = await get('/install.sh?version=9.9.9');
  expect(body.toString()).toContain(`\nBAKED_VERSION='9.9.9'\n`);
  expect(body.toString()).toContain(`\nBAKED_SHA256_ARM64='${DIGEST}'\n`);
});

test('the operator says where agents find the control plane', async () => {
  const { get } = await serve({ files: { [NAME]: ARCHIVE }, publicUrl: 'https://harrier.example/x' });
  const { body } = await get('/install.sh', { host: "a';reboot;'" });
  expect(body.toString()).toContain("\nBAKED_SERVER_URL='https://harrier.example/x'\n");
});

test.each([["x';reboot;'"], ['x$(reboot)'], ['a b']])('a Host header %j gets into no script', async (host) => {
  const { get } = await serve({ files: { [NAME]: ARCHIVE } });
  const { status, body } = await get('/install.sh', { host });
  expect(status).toBe(400);
  expect(body.toString()).not.toContain('reboot');
  expect(body.toString()).toMatch(/exit 1\n$/);
});

test('where there is no agent, the answer says what to do, also to a shell', async () => {
  const { get, directory } = await serve({ files: { 'harrier-agent-9.9.9-linux-x64.tar.gz': ARCHIVE } });
  const { status, body } = await get('/install.sh');
  expect(status).toBe(404);
  expect(body.toString()).toBe(
    `#!/bin/sh\necho 'the control plane has no agent ${VERSION} in ${directory} (there: 9.9.9); "npm run build:agent" in the sources makes one, HARRIER_AGENT_BUNDLES says where they are' >&2\nexit 1\n`,
  );
});

test('an agent comes byte for byte, and HEAD tells its size', async () => {
  const { get } = await serve({ files: { [NAME]: ARCHIVE } });
  const whole = await get(`/install/${NAME}`);
  expect(whole.status).toBe(200);
  expect(whole.body.equals(ARCHIVE)).toBe(true);
  const head = await get(`/install/${NAME}`, {}, 'HEAD');
  expect(head.headers['content-length']).toBe(String(ARCHIVE.length));
  expect(head.body).toHaveLength(0);
});

test.each([
  '/install/',
  '/install/../config.ts',
  '/install/%2e%2e%2fconfig.ts',
  '/install/secret.txt',
  '/install/harrier-agent-../../x-linux-x64.tar.gz',
  '/install/harrier-agent-8.8.8-linux-x64.tar.gz',
])('%s is nothing that is served', async (path) => {
  const { get, directory } = await serve({ files: { 'secret.txt': Buffer.from('secret') } });
  symlinkSync(directory, join(directory, 'harrier-agent-8.8.8-linux-x64.tar.gz'));
  expect(await get(path)).toMatchObject({ status: 404, body: Buffer.from('there is no such agent here\n') });
});

test('other paths are left to others, and other methods are refused', async () => {
  const { get } = await serve();
  expect((await get('/installer')).status).toBe(418);
  expect((await get('/install.sh', {}, 'POST')).status).toBe(405);
});

test('a version that is none is refused', async () => {
  const { get } = await serve({ files: { [NAME]: ARCHIVE } });
  expect((await get("/install.sh?version=';reboot;'")).status).toBe(400);
});
