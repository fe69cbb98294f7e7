import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { madeOnce } from './made-once.ts';
import { killProcessesWith, listProcesses } from './processes.ts';
import { until } from './wait.ts';

/** Images and their trees are made once and stay: below the user's cache, not in the repository. */
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'harrier', 'test-docker');
/** Of engines. */
const RUNTIMES = '/run';
const RUN = process.env.HARRIER_TEST_RUN ?? String(process.pid);

/** Debian with Python, and what Node.js needs, made from Debian's packages: no registry can be reached from everywhere. */
export const PYTHON_IMAGE = 'harrier-test/python:3';

const INSTALL = 'apt-get install -y --no-install-recommends docker.io debootstrap';

/** A Docker engine of the tests' own: no network, no bridge, no part in an engine that the host may have. */
export class TestEngine {
  readonly socket: string;
  readonly #runtime: string;
  readonly #data: string;

  /** @param name tells engines of this host apart; short, so that the paths of its sockets are */
  constructor(name: string) {
    this.#runtime = join(RUNTIMES, name);
    this.#data = join(CACHE, name === DEFAULT_NAME ? 'data' : `data-${name}`);
    this.socket = join(this.#runtime, 'docker.sock');
  }

  /** Starts it, unless it runs, with the image of Python in it. */
  async start(): Promise<void> {
    for (const program of ['dockerd', 'debootstrap']) {
      if (spawnSync('which', [program]).status !== 0)
        throw new Error(`${program} is missing; install with: ${INSTALL}`);
    }
    if (process.getuid?.() !== 0) throw new Error('the tests of Docker start an engine of their own, which takes root');
    mkdirSync(CACHE, { recursive: true });
    mkdirSync(this.#users, { recursive: true });
    // The engine is shared by the files of a run, and by runs that go on at the same time: the last one ends it.
    writeFileSync(join(this.#users, RUN), '');
    // One that is there may be slow to answer; another one beside it would take what is its own.
    await until('the Docker engine to answer', async () => {
      if (this.#pid() === undefined) await this.#launch();
      return this.#answers();
    });
    if (this.docker('image', 'ls', '--quiet', PYTHON_IMAGE) === '') this.docker('import', pythonTree(), PYTHON_IMAGE);
  }

  /** Ends it unless another run of tests uses it. */
  async leave(run: string = RUN): Promise<void> {
    rmSync(join(this.#users, run), { force: true });
    if (!this.#isOthers(run)) await this.stop();
  }

  /** Whether another run of tests uses it. */
  #isOthers(run: string = RUN): boolean {
    const users = existsSync(this.#users) ? readdirSync(this.#users) : [];
    return users.some((pid) => pid !== run && existsSync(`/proc/${pid}`));
  }

  /** Ends it: politely, or as a crash would. Containers that run end with it. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const pid = this.#pid();
    if (pid === undefined) return;
    process.kill(pid, signal);
    await until('the Docker engine to end', () => this.#pid() === undefined);
  }

  /** Runs the command `docker` on it. @returns its standard output, without the end of the line */
  docker(...args: string[]): string {
    return execFileSync('docker', args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: this.environment(),
      maxBuffer: 64 * 1024 * 1024,
    }).trim();
  }

  environment(): Record<string, string> {
    return {
      PATH: process.env.PATH ?? '/usr/bin:/bin',
      HOME: this.#runtime,
      DOCKER_HOST: `unix://${this.socket}`,
      DOCKER_BUILDKIT: '0',
    };
  }

  /** A file for each run of tests that uses the engine, named after its process. */
  get #users(): string {
    return join(this.#runtime, 'users');
  }

  #answers(): boolean {
    return spawnSync('docker', ['version'], { env: this.environment(), timeout: 10_000 }).status === 0;
  }

  /** Started as a daemon: it outlives the file that starts it. */
  async #launch(): Promise<void> {
    const options = [
      ...['--host', `unix://${this.socket}`, '--pidfile', join(this.#runtime, 'dockerd.pid')],
      ...['--data-root', this.#data, '--exec-root', join(this.#runtime, 'exec')],
      ...['--bridge', 'none', '--iptables=false', '--ip6tables=false'],
    ];
    const logFile = join(this.#runtime, 'dockerd.log');
    const log = openSync(logFile, 'w');
    // An engine that was killed leaves these, and their numbers may be somebody else's by now.
    for (const file of ['dockerd.pid', 'exec/containerd/containerd.pid']) {
      rmSync(join(this.#runtime, file), { force: true });
    }
    killProcessesWith(`${this.#runtime}/exec/containerd/containerd.toml`);
    // The shell ends at once, so that the engine is nobody's child.
    const script = 'setsid dockerd "$@" <&- &';
    spawnSync('sh', ['-c', script, 'dockerd', ...options], { stdio: ['ignore', log, log], env: this.environment() });
    closeSync(log);
    await until('the Docker engine to answer', () => {
      if (this.#pid() === undefined && readFileSync(logFile, 'utf8').includes('failed to start')) {
        throw new Error(`dockerd ended:\n${readFileSync(logFile, 'utf8').slice(-4000)}`);
      }
      return this.#answers();
    });
  }

  #pid(): number | undefined {
    return listProcesses().find(({ command }) => command.startsWith('dockerd ') && command.includes(this.socket))?.pid;
  }
}

const DEFAULT_NAME = 'harrier-test-docker';
/** From 1; no two files that go on at the same time have the same one. */
const WORKER = process.env.VITEST_POOL_ID ?? '1';
/** Files share it, one after the other. Those that go on at the same time have one each: some of them kill theirs. */
const ENGINE = new TestEngine(WORKER === '1' ? DEFAULT_NAME : `${DEFAULT_NAME}.${WORKER}`);

/** Of the engine that the tests share. */
export const DOCKER_SOCKET = ENGINE.socket;

/** Starts the engine that the tests share. */
export async function startDockerEngine(): Promise<void> {
  await ENGINE.start();
}

/** Ends the shared engines that no other run of tests uses. */
export async function leaveDockerEngines(run: string): Promise<void> {
  const names = readdirSync(RUNTIMES).filter((name) => name.startsWith(DEFAULT_NAME));
  await Promise.all(names.map((name) => new TestEngine(name).leave(run)));
}

/** Ends the shared engine: politely, or as a crash would. */
export async function stopDockerEngine(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
  await ENGINE.stop(signal);
}

/** Runs the command `docker` on the shared engine. @returns its standard output, without the end of the line */
export function docker(...args: string[]): string {
  return ENGINE.docker(...args);
}

/**
 * Builds an image without a network.
 * @param dockerfile its text
 * @param context directory that it may copy from
 * @param base value of its argument BASE
 */
export function buildImage(name: string, dockerfile: string, context?: string, base?: string): void {
  const args = [
    'build',
    '--quiet',
    '--network',
    'none',
    '--tag',
    name,
    ...(base === undefined ? [] : ['--build-arg', `BASE=${base}`]),
    ...(context === undefined ? ['-'] : ['-f', '-', context]),
  ];
  execFileSync('docker', args, { input: dockerfile, env: dockerEnvironment(), stdio: ['pipe', 'ignore', 'pipe'] });
}

/** An image of Debian with a file or directory of this host in it, made once. */
export function imageWith(name: string, source: string, target: string): string {
  if (docker('image', 'ls', '--quiet', name) !== '') return name;
  const dockerfile = `FROM ${PYTHON_IMAGE}\nCOPY . ${target}\nENV PATH=${target}/bin:/usr/local/bin:/usr/bin:/bin\n`;
  buildImage(name, dockerfile, source);
  return name;
}

export function dockerEnvironment(): Record<string, string> {
  return ENGINE.environment();
}

/** An archive of the tree. */
function pythonTree(): string {
  return madeOnce(join(CACHE, 'bookworm.tar'), (archive) => {
    const tree = `${archive}.tree`;
    const flags = ['--variant=minbase', '--include=python3,libatomic1,libstdc++6'];
    try {
      execFileSync('debootstrap', [...flags, 'bookworm', tree], { stdio: 'ignore' });
      for (const path of ['var/cache/apt', 'var/lib/apt/lists']) {
        rmSync(join(tree, path), { recursive: true, force: true });
      }
      execFileSync('tar', ['--numeric-owner', '-C', tree, '-cf', archive, '.']);
    } finally {
      rmSync(tree, { recursive: true, force: true });
    }
  });
}
