import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { createServer } from 'node:net';
import { HarrierError } from './errors.ts';

export interface DirectoryLock {
  release(): Promise<void>;
}

/**
 * Holds a directory for one process on this host. The lock is an abstract unix socket (unix(7)) named after the directory:
 * taking it is atomic, and the kernel gives it back however the process ends.
 * @param purpose what holds it, for the error: `a control plane`.
 * @throws HarrierError failed_precondition when another process holds it.
 */
export async function lockDirectory(directory: string, purpose: string): Promise<DirectoryLock> {
  const path = realpathSync(directory);
  const name = createHash('sha256').update(path).digest('hex').slice(0, 32);
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const message =
        cause.code === 'EADDRINUSE'
          ? `${path} is in use by ${purpose} that is running; stop it or choose another data directory`
          : `${path} cannot be locked: ${cause.message}`;
      reject(new HarrierError('failed_precondition', message, { cause }));
    });
    server.listen(`\0harrier-${name}`, resolve);
  });
  server.unref();
  return { release: () => new Promise((resolve) => server.close(() => resolve())) };
}
