import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync } from 'node:fs';
import { freePort } from './free-port.ts';
import { Program, runProgram, untilGone } from './program.ts';
import { until } from './wait.ts';
import { directory, environment } from './workspace.ts';

/** A PostgreSQL of the system's packages, with a cluster, a port and a unix socket of its own. */
export class ExternalPostgres {
  program: Program;
  readonly url: string;
  readonly port: number;
  /** Where its unix socket is. */
  readonly socketDirectory: string;

  readonly #start: () => Promise<Program>;

  private constructor(program: Program, port: number, socketDirectory: string, start: () => Promise<Program>) {
    this.program = program;
    this.#start = start;
    this.url = `postgres://harrier@127.0.0.1:${port}/postgres`;
    this.port = port;
    this.socketDirectory = socketDirectory;
  }

  static async start(): Promise<ExternalPostgres> {
    return await startCluster(async (cluster, run) => {
      const locale = ['-E', 'UTF8', '--locale', 'C'];
      await run('initdb', '-D', cluster, '-U', 'harrier', '--auth', 'trust', ...locale);
    });
  }

  /** A copy of it that follows it, and from which one can read; see `promote`. */
  async startStandby(): Promise<ExternalPostgres> {
    return await startCluster(async (cluster, run) => {
      const source = ['-h', '127.0.0.1', '-p', String(this.port), '-U', 'harrier'];
      await run('pg_basebackup', '-D', cluster, ...source, '--write-recovery-conf', '--wal-method=stream');
    });
  }

  /** @internal */
  static async open(port: number, socketDirectory: string, start: () => Promise<Program>): Promise<ExternalPostgres> {
    return new ExternalPostgres(await start(), port, socketDirectory, start);
  }

  /** Ends all of its processes at once, as a loss of power does. */
  async kill(): Promise<void> {
    const tree = this.program.tree();
    for (const { pid } of tree) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended with its parent.
      }
    }
    await untilGone(tree);
  }

  /** Starts it again on the same cluster and port. */
  async startAgain(): Promise<void> {
    this.program = await this.#start();
  }

  async stop(): Promise<void> {
    const tree = this.program.tree();
    await this.program.stop('SIGINT');
    await untilGone(tree);
  }
}

function idsOf(user: string): { uid: number; gid: number } {
  const id = (flag: string) => Number(execFileSync('id', [flag, user]));
  return { uid: id('-u'), gid: id('-g') };
}

type Run = (program: string, ...options: string[]) => Promise<void>;

/** @param make fills the directory of a cluster that is empty */
async function startCluster(make: (cluster: string, run: Run) => Promise<void>): Promise<ExternalPostgres> {
  const port = await freePort();
  const [cluster, sockets] = [directory('pg'), directory('s')];
  // PostgreSQL refuses to run as root.
  const user = process.getuid?.() === 0 ? idsOf('nobody') : undefined;
  for (const path of [cluster, sockets]) {
    chmodSync(path, 0o700);
    if (user !== undefined) chownSync(path, user.uid, user.gid);
  }
  const env = environment({ TZ: 'UTC' });
  await make(cluster, async (program, ...options) => {
    const made = await runProgram({ argv: [program, ...options], env, cwd: cluster, ...user });
    if (made.code !== 0) throw new Error(`${program} failed:\n${made.stderr}`);
  });
  const places = ['-D', cluster, '-k', sockets, '-h', '127.0.0.1', '-p', String(port)];
  return await ExternalPostgres.open(port, sockets, async () => {
    const program = new Program({ argv: ['postgres', ...places], env, cwd: cluster, ...user });
    await until('PostgreSQL to accept connections', () => {
      if (!program.running) throw new Error(`PostgreSQL ended:\n${program.stderr}`);
      return /ready to accept (read-only )?connections/.test(program.stderr);
    });
    return program;
  });
}
