import type { FileHandle } from 'node:fs/promises';
import { readFile } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { type Logger, VERSION } from '@harrier/shared';
import { type HttpRequest, type HttpResponse, pathOf, queryOf, type TryHandler } from '../http-types.ts';
import { sendText, settle } from '../response-writer.ts';
import { Bundles, isVersion } from './bundles.ts';
import { refusalScript, renderInstallScript } from './install-script.ts';
import { urlFromHost } from './public-url.ts';

const TEMPLATE = fileURLToPath(new URL('../../../../deploy/agent/install.sh', import.meta.url));
const SCRIPT_PATH = '/install.sh';
const FILE_PATH = '/install/';
/** Nobody has to say who they are here, and a file has 60 MB: the network is for calls first. */
const MAX_DOWNLOADS = 16;
const RETRY_AFTER_S = 5;
const NO_STORE = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' };

export interface InstallOptions {
  /** Directory of the agents that can be installed. */
  bundlesDirectory: string;
  /** Where agents find this control plane; undefined: where the request found it. */
  publicUrl: string | undefined;
  logger: Logger;
}

/**
 * `/install.sh`, the installer of agents, and `/install/…`, the agents themselves. Public: there is nothing secret in them, and a host
 * that has not joined yet has nothing to prove who it is.
 */
export function createInstallHandler(options: InstallOptions): TryHandler {
  const bundles = new Bundles(options.bundlesDirectory);
  let downloads = 0;

  return (request, response) => {
    const path = pathOf(request);
    if (path !== SCRIPT_PATH && !path.startsWith(FILE_PATH)) return false;
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      sendText(response, 405, 'text/plain', { ...NO_STORE, allow: 'GET, HEAD' }, 'GET only\n');
    } else if (path === SCRIPT_PATH) {
      settle(sendScript(request, response), response, options.logger);
    } else {
      settle(sendFile(path.slice(FILE_PATH.length), request, response), response, options.logger);
    }
    return true;
  };

  async function sendScript(request: HttpRequest, response: HttpResponse): Promise<void> {
    const refuse = (status: number, message: string) =>
      sendText(response, status, 'text/x-shellscript; charset=utf-8', NO_STORE, refusalScript(message));
    const version = new URLSearchParams(queryOf(request)).get('version') ?? VERSION;
    if (!isVersion(version)) return refuse(400, 'the version that was asked for is none');
    const serverUrl = options.publicUrl ?? urlFromHost(hostOf(request), isEncrypted(request));
    if (serverUrl === undefined) {
      return refuse(400, 'the Host header names no host; the operator can set HARRIER_PUBLIC_URL');
    }
    const sha256 = await bundles.digestsOf(version);
    if (sha256.x64 === undefined && sha256.arm64 === undefined) {
      const others = (await bundles.versions()).join(', ') || 'none';
      return refuse(
        404,
        `the control plane has no agent ${version} in ${bundles.directory} (there: ${others}); "npm run build:agent" in the sources makes one, HARRIER_AGENT_BUNDLES says where they are`,
      );
    }
    const script = renderInstallScript(await readFile(TEMPLATE, 'utf8'), { version, serverUrl, sha256 });
    sendText(response, 200, 'text/x-shellscript; charset=utf-8', NO_STORE, script);
  }

  async function sendFile(name: string, request: HttpRequest, response: HttpResponse): Promise<void> {
    if (downloads >= MAX_DOWNLOADS) {
      const headers = { ...NO_STORE, 'retry-after': String(RETRY_AFTER_S) };
      sendText(response, 503, 'text/plain', headers, `${downloads} agents are being fetched already; try again\n`);
      return;
    }
    downloads++;
    try {
      const found = await bundles.open(name);
      if (found === undefined) sendText(response, 404, 'text/plain', NO_STORE, 'there is no such agent here\n');
      else await stream(found, request, response);
    } finally {
      downloads--;
    }
  }
}

async function stream(
  { file, bytes }: { file: FileHandle; bytes: number },
  request: HttpRequest,
  response: HttpResponse,
): Promise<void> {
  response.writeHead(200, { ...NO_STORE, 'content-type': 'application/gzip', 'content-length': bytes });
  if (request.method === 'HEAD') {
    response.end();
    await file.close();
    return;
  }
  // Closes the file. A file that grows meanwhile must not send more than was announced.
  const source = file.createReadStream({ start: 0, end: Math.max(0, bytes - 1) });
  await pipeline(source, response as unknown as Writable);
}

function hostOf(request: HttpRequest): string | undefined {
  return 'authority' in request ? request.authority || request.headers.host : request.headers.host;
}

function isEncrypted(request: HttpRequest): boolean {
  return 'encrypted' in request.socket && request.socket.encrypted === true;
}
