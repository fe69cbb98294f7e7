import { isAbsolute, normalize, resolve } from 'node:path';
import type { ServiceVolume } from './service-definition.ts';

const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/**
 * Reads `SOURCE:TARGET[:ro|:rw]`; a source with a slash is a path of the host, any other one the name of a volume.
 * @param base directory that relative paths start from
 * @throws Error that says what is wrong with it
 */
export function parseVolume(text: string, base: string): ServiceVolume {
  const [source = '', target = '', mode, ...rest] = text.split(':');
  if (source === '' || target === '' || rest.length > 0) {
    throw new Error(`must be SOURCE:TARGET or SOURCE:TARGET:ro, not "${text}"`);
  }
  if (mode !== undefined && mode !== 'ro' && mode !== 'rw') throw new Error(`must end with :ro or :rw, not ":${mode}"`);
  if (!isAbsolute(target)) throw new Error(`the target must be an absolute path, not "${target}"`);
  const isPath = source.includes('/') || source === '.' || source === '..';
  if (!isPath && !VOLUME_NAME.test(source)) {
    throw new Error(`"${source}" is no name of a volume; write a path with a slash, for example ./${source}`);
  }
  return {
    kind: isPath ? 'bind' : 'volume',
    source: isPath ? resolve(base, source) : source,
    target: normalize(target),
    readOnly: mode === 'ro',
  };
}

/** Whether a path is a socket or a directory that has it somewhere below. */
export function holdsSocket(path: string, socketPaths: readonly string[]): boolean {
  const directory = path.endsWith('/') ? path : `${path}/`;
  return socketPaths.some((socket) => socket === path || socket.startsWith(directory));
}
