import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { clearDeadHosts, HostGroup } from './host-group.ts';
import { madeOnce } from './made-once.ts';
import { listProcesses } from './processes.ts';
import { type Exit, Program, runProgram } from './program.ts';
import { until, within } from './wait.ts';
import { directory } from './workspace.ts';

/** The tree is made once and stays: below the user's cache, not in the repository. */
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'harrier', 'test-systemd');
/** What an agent needs of its host, and what its installer does not bring. */
const PACKAGES = ['systemd-sysv', 'dbus', 'python3', 'bubblewrap', 'curl', 'ca-certificates'];
const INSTALL = 'apt-get install -y --no-install-recommends systemd-container debootstrap e2fsprogs xfsprogs';
/** How systemd-nspawn ends with --keep-unit when what it has booted asks for another boot. */
const BOOT_WANTED = 133;
/** More than any unit is given to end, or to start, when the whole system does. */
const BOOT_MS = 180_000;
/** Namespaces of the booted system that a command runs in. */
const NAMESPACES = ['--mount', '--uts', '--ipc', '--pid', '--cgroup'];

/** Both need the kernel to know them; XFS takes 300 MiB or more, and grows in use without CAP_SYS_RESOURCE. */
export type Disks = Readonly<Record<string, { kind: 'ext4' | 'xfs'; bytes: number }>>;

export interface SystemdHostOptions {
  /** Directories of this host that it has read-only, by where. */
  binds?: Readonly<Record<string, string>>;
  /** The same, which it may write to. */
  writable?: Readonly<Record<string, string>>;
  /** File systems of its own, by where. */
  disks?: Disks;
  /** Debian packages beside what an agent needs. */
  packages?: readonly string[];
  /** A name, and a network of its own that has nothing but the loopback. Default: name and network of this host. */
  alone?: { name: string };
}

/** A host that systemd has booted, in a container: units, users and files of its own. */
export class SystemdHost {
  readonly #start: () => { container: Program; group: HostGroup };
  #container: Program;
  #group: HostGroup;
  readonly #root: string;
  readonly #namespaces: readonly string[];
  readonly #disks: ReadonlyMap<string, Disk>;
  #init = 0;

  private constructor(
    start: () => { container: Program; group: HostGroup },
    root: string,
    namespaces: readonly string[],
    disks: ReadonlyMap<string, Disk>,
  ) {
    this.#start = start;
    ({ container: this.#container, group: this.#group } = start());
    this.#root = root;
    this.#namespaces = namespaces;
    this.#disks = disks;
  }

  /** Boots one and waits until everything is started. */
  static async boot(options: SystemdHostOptions = {}): Promise<SystemdHost> {
    const { binds = {}, writable = {}, disks = {}, packages = [], alone } = options;
    const makers = Object.values(disks).map(({ kind }) => `mkfs.${kind}`);
    for (const program of ['systemd-nspawn', 'debootstrap', ...makers]) {
      if (spawnSync('which', [program]).status !== 0)
        throw new Error(`${program} is missing; install with: ${INSTALL}`);
    }
    if (process.getuid?.() !== 0)
      throw new Error('the tests of the units boot a system of their own, which takes root');
    await clearDeadHosts();
    const layers = directory('host');
    const own = new Map(Object.entries(disks).map(([at, disk]) => [at, new Disk(directory('disk', layers), disk)]));
    const [upper, work, root] = ['upper', 'work', 'root'].map((name) => join(layers, name)) as [string, string, string];
    for (const path of [upper, work, root]) mkdirSync(path);
    const overlay = `lowerdir=${baseTree([...PACKAGES, ...packages])},upperdir=${upper},workdir=${work}`;
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', overlay, root]);
    const shared = Object.entries(binds).map(([at, source]) => `--bind-ro=${source}:${at}`);
    for (const [at, source] of Object.entries(writable)) shared.push(`--bind=${source}:${at}`);
    // The device as well, for whoever does something to the file system.
    for (const [at, { path, device }] of own) shared.push(`--bind=${path}:${at}`, `--bind=${device}`);
    const flags = ['--boot', '--directory', root, '--register=no', '--keep-unit', '--console=pipe', ...shared];
    if (alone !== undefined) {
      flags.push('--private-network');
      writeFileSync(join(root, 'etc/hostname'), `${alone.name}\n`);
    }
    const env = {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      // As on a host: bubblewrap makes a /proc in its namespaces, which the kernel refuses where parts of it are covered.
      SYSTEMD_NSPAWN_API_VFS_WRITABLE: '1',
      SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: '1',
    };
    const start = () => {
      const group = new HostGroup(layers);
      return { group, container: new Program({ argv: [...group.enter, 'systemd-nspawn', ...flags], env }) };
    };
    const host = new SystemdHost(start, root, [...NAMESPACES, ...(alone === undefined ? [] : ['--net'])], own);
    await host.#untilBooted();
    return host;
  }

  /** Runs a command as its root. Never throws for a command that fails. */
  async run(
    argv: readonly string[],
    options: { env?: Record<string, string>; deadlineMs?: number } = {},
  ): Promise<Exit & { stdout: string; stderr: string }> {
    return await runProgram({
      argv: ['nsenter', '--target', String(this.#init), ...this.#namespaces, '--', ...argv],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...options.env },
      cwd: '/',
      ...(options.deadlineMs === undefined ? {} : { deadlineMs: options.deadlineMs }),
    });
  }

  /** What a shell command writes. @throws Error with what it says, when it fails */
  async shell(script: string, options: { env?: Record<string, string>; deadlineMs?: number } = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(['sh', '-c', script], options);
    if (code !== 0) throw new Error(`"${script}" ended with code ${code}:\n${stdout}${stderr}`);
    return stdout.trim();
  }

  /** A property of a unit, as systemd tells it. */
  async property(unit: string, name: string): Promise<string> {
    return await this.shell(`systemctl show --property=${name} --value ${unit}`);
  }

  /** Its processes, each as its user and its command line; without the tools for it, which a minimal Debian does not have. */
  async processes(): Promise<string[]> {
    const each = 'printf "%s %s\\n" "$(stat -c %U $one)" "$(tr "\\0" " " < $one/cmdline)"';
    const lines = await this.shell(`for one in /proc/[0-9]*; do ${each} 2> /dev/null; done`);
    return lines.split('\n').map((line) => line.trim());
  }

  /** Every file and directory outside of what the system itself writes, in order. */
  async files(): Promise<string[]> {
    const own = [
      '/proc',
      '/sys',
      '/dev',
      '/run',
      '/tmp',
      '/var/tmp',
      '/var/log/journal',
      '/var/lib/systemd',
      '/var/cache',
    ];
    const left = own.map((path) => `-path ${path}`).join(' -o ');
    return (await this.shell(`find / \\( ${left} \\) -prune -o -print`)).split('\n').toSorted();
  }

  /** Makes the volume of one of its own file systems larger, as from outside of a host: the file system stays as it was. */
  enlargeVolume(at: string, bytes: number): void {
    const disk = this.#disks.get(at);
    if (disk === undefined) throw new Error(`${at} is no file system of its own`);
    disk.enlarge(bytes);
  }

  /** Waits until it has ended because something in it has asked for a boot, starts it again, and waits until all is started. */
  async bootAgain(): Promise<void> {
    const { code } = await within('the system to end for a boot', this.#container.exited, BOOT_MS);
    if (code !== BOOT_WANTED)
      throw new Error(`systemd-nspawn ended with ${code}:\n${this.#container.stderr.slice(-4000)}`);
    await this.#group.remove();
    ({ container: this.#container, group: this.#group } = this.#start());
    await this.#untilBooted();
  }

  /** Shuts it down; nothing of it is left. */
  async stop(): Promise<void> {
    if (this.#container.running) {
      // The signal by which systemd switches its machine off (systemd(1), SIGRTMIN+4): nspawn sends it for SIGTERM.
      await this.#container.stop('SIGTERM');
    }
    await this.#group.remove();
    execFileSync('umount', [this.#root]);
    for (const disk of this.#disks.values()) disk.remove();
  }

  async #untilBooted(): Promise<void> {
    this.#init = await until('the container to have a first process', () => {
      if (!this.#container.running) throw new Error(`systemd-nspawn ended:\n${this.#container.stderr.slice(-4000)}`);
      // It has others before, which make this one and end.
      return listProcesses().find(({ pid, parent }) => parent === this.#container.pid && isFirst(pid))?.pid;
    });
    let state = '';
    await until(
      'the system to be up',
      async () => {
        state = (await this.run(['systemctl', 'is-system-running'])).stdout.trim();
        return state === 'running' || state === 'degraded';
      },
      { seen: () => state, deadlineMs: BOOT_MS },
    );
  }
}

/** Whether the process is the first one of a namespace. */
function isFirst(pid: number): boolean {
  try {
    return /^NSpid:.*\s1$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** A file system in a file, mounted on this host. */
class Disk {
  readonly path: string;
  /** What the kernel has it as. */
  readonly device: string;
  readonly #image: string;

  constructor(path: string, { kind, bytes }: Disks[string]) {
    this.path = path;
    this.#image = `${this.path}.img`;
    writeFileSync(this.#image, '');
    truncateSync(this.#image, bytes);
    execFileSync(`mkfs.${kind}`, ['-q', this.#image]);
    const { status, stderr } = spawnSync('mount', ['-o', 'loop', this.#image, this.path], { encoding: 'utf8' });
    if (status !== 0)
      throw new Error(
        `a file cannot be mounted as a disk; that takes /dev/loop-control, a free /dev/loopN, and ${kind} in the kernel (modprobe loop ${kind}): ${stderr}`,
      );
    const find = ['--associated', this.#image, '--noheadings', '--output', 'NAME'];
    this.device = execFileSync('losetup', find, { encoding: 'utf8' }).trim();
  }

  enlarge(bytes: number): void {
    truncateSync(this.#image, bytes);
    execFileSync('losetup', ['--set-capacity', this.device]);
  }

  remove(): void {
    execFileSync('umount', [this.path]);
  }
}

/** Debian with these packages. */
function baseTree(packages: readonly string[]): string {
  const name = createHash('sha256').update(packages.join()).digest('hex').slice(0, 12);
  const flags = ['--variant=minbase', `--include=${packages.join()}`];
  return madeOnce(join(CACHE, `bookworm-${name}`), (tree) => {
    execFileSync('debootstrap', [...flags, 'bookworm', tree], { stdio: 'ignore' });
  });
}
