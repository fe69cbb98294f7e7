import { realpathSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { messageOf } from '@harrier/shared';
import type { CheckOptions } from './check-services.ts';
import { parseServicesFile, type ServicesFile } from './parse-services-file.ts';

export interface LoadOptions {
  /** Absolute path of the file. */
  path: string;
  environment: string;
  /** Socket of the engine. */
  socketPath: string;
  isGivenGpu: CheckOptions['isGivenGpu'];
}

/** Where the engine listens unless it was told another place. */
const USUAL_SOCKET = '/run/docker.sock';

/** Reads a services file. Never throws: what is wrong is a problem. */
export async function loadServicesFile(options: LoadOptions): Promise<ServicesFile> {
  const { path, environment, socketPath, isGivenGpu } = options;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path));
  } catch (error) {
    const message = `cannot be read: ${messageOf(error)}`;
    return { services: [], stopWithAgent: false, problems: [{ position: undefined, message }] };
  }
  const base = dirname(path);
  const socketPaths = [realPath(socketPath), realPath(USUAL_SOCKET)];
  return parseServicesFile(text, { environment, base, socketPaths, realPath, isGivenGpu });
}

/** A path without symbolic links; what is not there yet stays as it is below what is. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPath(parent), basename(path));
  }
}
