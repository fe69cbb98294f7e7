import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { killProcessesWith, listProcesses } from './processes.ts';
import { until } from './wait.ts';

/** Images and their trees are made once and stay: below the user's cache, not in the repository. */
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'harrier', 'test-docker');
/** Short, so that the sockets in it have short paths. */
const RUNTIME = '/run/harrier-test-docker';
/** A file for each run of tests that uses the engine, named after its process. */
const USERS = join(RUNTIME, 'users');
const RUN = process.env.HARRIER_TEST_RUN ?? String(process.pid);
const LOG = join(RUNTIME, 'dockerd.log');

/** A Docker engine of the tests' own: no network, no bridge, no part in an engine that the host may have. */
export const DOCKER_SOCKET = join(RUNTIME, 'docker.sock');

/** Debian with Python, and what Node.js needs, made from Debian's packages: no registry can be reached from everywhere. */
export const PYTHON_IMAGE = 'harrier-test/python:3';

const INSTALL = 'apt-get install -y --no-install-recommends docker.io debootstrap';

/** Starts the engine, unless it runs, with the image of Python in it. */
export async function startDockerEngine(): Promise<void> {
  for (const program of ['dockerd', 'debootstrap']) {
    if (spawnSync('which', [program]).status !== 0) throw new Error(`${program} is missing; install with: ${INSTALL}`);
  }
  if (process.getuid?.() !== 0) throw new Error('the tests of Docker start an engine of their own, which takes root');
  mkdirSync(CACHE, { recursive: true });
  mkdirSync(USERS, { recursive: true });
  // The engine is shared by the files of a run, and by runs that go on at the same time: the last one ends it.
  writeFileSync(join(USERS, RUN), '');
  if (!answers()) await launch();
  if (docker('image', 'ls', '--quiet', PYTHON_IMAGE) === '') docker('import', pythonTree(), PYTHON_IMAGE);
}

/** Ends the engine unless another run of tests uses it. */
export async function leaveDockerEngine(run: string): Promise<void> {
  rmSync(join(USERS, run), { force: true });
  const users = existsSync(USERS) ? readdirSync(USERS) : [];
  if (users.every((pid) => !existsSync(`/proc/${pid}`))) await stopDockerEngine();
}

/** Ends the engine: politely, or as a crash would. Containers that run end with it. */
export async function stopDockerEngine(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
  const pid = enginePid();
  if (pid === undefined) return;
  process.kill(pid, signal);
  await until('the Docker engine to end', () => enginePid() === undefined);
}

/** Runs the command `docker` on the engine. @returns its standard output, without the end of the line */
export function docker(...args: string[]): string {
  return execFileSync('docker', args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: dockerEnvironment(),
    maxBuffer: 64 * 1024 * 1024,
  }).trim();
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
  return {
    PATH: process.env.PATH ?? '/usr/bin:/bin',
    HOME: RUNTIME,
    DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
    DOCKER_BUILDKIT: '0',
  };
}

function answers(): boolean {
  return spawnSync('docker', ['version'], { env: dockerEnvironment(), timeout: 10_000 }).status === 0;
}

/** Started as a daemon: it outlives the file that starts it. */
async function launch(): Promise<void> {
  const options = [
    ...['--host', `unix://${DOCKER_SOCKET}`, '--pidfile', join(RUNTIME, 'dockerd.pid')],
    ...['--data-root', join(CACHE, 'data'), '--exec-root', join(RUNTIME, 'exec')],
    ...['--bridge', 'none', '--iptables=false', '--ip6tables=false'],
  ];
  const log = openSync(LOG, 'w');
  // An engine that was killed leaves these, and their numbers may be somebody else's by now.
  for (const file of ['dockerd.pid', 'exec/containerd/containerd.pid']) rmSync(join(RUNTIME, file), { force: true });
  killProcessesWith(`${RUNTIME}/exec/containerd/containerd.toml`);
  // The shell ends at once, so that the engine is nobody's child.
  const script = 'setsid dockerd "$@" <&- &';
  spawnSync('sh', ['-c', script, 'dockerd', ...options], { stdio: ['ignore', log, log], env: dockerEnvironment() });
  closeSync(log);
  await until('the Docker engine to answer', () => {
    if (enginePid() === undefined && readFileSync(LOG, 'utf8').includes('failed to start')) {
      throw new Error(`dockerd ended:\n${readFileSync(LOG, 'utf8').slice(-4000)}`);
    }
    return answers();
  });
}

function enginePid(): number | undefined {
  return listProcesses().find(({ command }) => command.startsWith('dockerd ') && command.includes(DOCKER_SOCKET))?.pid;
}

function pythonTree(): string {
  const archive = join(CACHE, 'bookworm.tar');
  if (existsSync(archive)) return archive;
  const tree = join(CACHE, 'tree');
  execFileSync('rm', ['-rf', tree]);
  execFileSync('debootstrap', ['--variant=minbase', '--include=python3,libatomic1,libstdc++6', 'bookworm', tree], {
    stdio: 'ignore',
  });
  execFileSync('rm', ['-rf', join(tree, 'var/cache/apt'), join(tree, 'var/lib/apt/lists')]);
  execFileSync('tar', ['--numeric-owner', '-C', tree, '-cf', `${archive}.new`, '.']);
  renameSync(`${archive}.new`, archive);
  execFileSync('rm', ['-rf', tree]);
  return archive;
}
