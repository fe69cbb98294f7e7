import { mkdirSync, renameSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { HarrierError, messageOf } from '@harrier/shared';

const FILE_NAME = 'agent.lock';
/** How often a free-looking lock is tried again when other agents start at the same time. */
const TRIES = 5;

/** Held until released, or until the process ends however it ends. */
export interface DataDirLock {
  release(): Promise<void>;
}

/**
 * Takes a data directory for this process: two agents with one identity would replace each other's link without end.
 * The lock is a listening unix socket, so that the kernel gives it up with the process: no stale process number is ever
 * mistaken for an agent, in containers neither.
 * @throws HarrierError failed_precondition, when another agent holds it
 */
export async function lockDataDir(dataDir: string): Promise<DataDirLock> {
  makeDataDir(dataDir);
  const path = join(dataDir, FILE_NAME);
  for (let tries = 0; tries < TRIES; tries++) {
    const server = await listen(path);
    if (server !== undefined) return { release: () => close(server) };
    const holder = await removeIfDead(path);
    if (holder !== undefined) {
      throw new HarrierError(
        'failed_precondition',
        `the data directory ${dataDir} is in use by another agent (process ${holder}); give this one its own with HARRIER_AGENT_DATA_DIR`,
      );
    }
  }
  throw new HarrierError('failed_precondition', `the lock ${path} could not be taken: other agents keep starting`);
}

function makeDataDir(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new HarrierError('failed_precondition', `the data directory cannot be made: ${messageOf(cause)}`, { cause });
  }
}

/** A listening server, or undefined when the path exists. */
function listen(path: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy());
      socket.end(String(process.pid));
    });
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined);
      else reject(new HarrierError('failed_precondition', `the lock ${path}: ${messageOf(error)}`, { cause: error }));
    });
    server.listen(path, () => {
      server.unref();
      resolve(server);
    });
  });
}

/**
 * Removes the lock of a dead process, or answers the holder's process number. The socket is moved aside before it is
 * tried, so that of two agents that start at once neither removes the other's new lock.
 */
async function removeIfDead(path: string): Promise<string | undefined> {
  const aside = `${path}.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const holder = await askHolder(aside);
  if (holder === undefined) unlinkSync(aside);
  else renameSync(aside, path);
  return holder;
}

/** The process number that the holder answers, undefined when nobody listens. */
function askHolder(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = createConnection(path);
    socket.setEncoding('utf8');
    socket.setTimeout(1000, () => {
      socket.destroy();
      resolve('unknown');
    });
    socket.on('data', (text: string) => {
      answer += text;
    });
    socket.on('end', () => resolve(answer === '' ? 'unknown' : answer));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code === 'ECONNREFUSED' || error.code === 'ENOENT' ? undefined : 'unknown');
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
