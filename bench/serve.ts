import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface Served {
  url: string;
  stop(): Promise<void>;
}

/** Starts a server of `bench/servers/` in a process of its own; its first line says where it listens. */
export async function serve(file: string): Promise<Served> {
  const program = fileURLToPath(new URL(`./servers/${file}`, import.meta.url));
  const child = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [url] = (await once(createInterface(child.stdout), 'line')) as [string];
  return {
    url,
    stop: async () => {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    },
  };
}
