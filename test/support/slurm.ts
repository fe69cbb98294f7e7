import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { freePort } from './free-port.ts';
import { killProcessesWith } from './processes.ts';
import { Program } from './program.ts';
import { until } from './wait.ts';
import { directory, environment } from './workspace.ts';

const INSTALL =
  'apt-get install -y --no-install-recommends slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core';
const DAEMONS = {
  munged: '/usr/sbin/munged',
  mariadbd: '/usr/sbin/mariadbd',
  slurmdbd: '/usr/sbin/slurmdbd',
  slurmctld: '/usr/sbin/slurmctld',
  slurmd: '/usr/sbin/slurmd',
};
const MAKE_DATABASE = '/usr/bin/mariadb-install-db';
/** Longer than a command of Slurm waits for the controller, where that time (MessageTimeout) is set to a minute. */
const COMMAND_MS = 90_000;
type Daemon = keyof typeof DAEMONS;

export interface SlurmOptions {
  /** Jobs of one processor that the node runs at once; more than it has processors. */
  cpus?: number;
  /** How long the controller waits before it starts a batch job, so that it has several to choose from; Slurm's default is 3. */
  batchDelayS?: number;
  /** Device nodes that Slurm takes for GPUs of the node; their names end with their numbers. */
  gpus?: readonly string[];
  /** Keeps accounts: a slurmdbd with a MariaDB of its own. Absent: it keeps none. */
  accounting?: boolean;
  /** Lines that are added to `slurm.conf`. */
  settings?: readonly string[];
}

/**
 * A cluster of one node, which is this host: a real munged, slurmctld and slurmd with ports and directories of their own. Its
 * partitions: `main`, the default; `low`, whose jobs make room for those of `high`; `closed`, which takes no jobs.
 */
export class TestSlurm {
  readonly directory = directory('s');
  readonly configuration = join(this.directory, 'slurm.conf');
  readonly #daemons = new Map<Daemon, Program>();

  /** Starts it, and waits until it takes jobs. */
  static async start(options: SlurmOptions = {}): Promise<TestSlurm> {
    for (const path of [...Object.values(DAEMONS), MAKE_DATABASE]) {
      if (spawnSync('test', ['-x', path]).status !== 0) throw new Error(`${path} is missing; install with: ${INSTALL}`);
    }
    if (process.getuid?.() !== 0) throw new Error('the tests of Slurm start a cluster of their own, which takes root');
    const slurm = new TestSlurm();
    await slurm.#configure(options);
    slurm.#startMunge();
    if (options.accounting) await slurm.#openAccounting();
    slurm.startController();
    slurm.startNode();
    await slurm.untilReady();
    return slurm;
  }

  /** What a process needs to use the cluster. */
  get environment(): Record<string, string> {
    return { SLURM_CONF: this.configuration };
  }

  startController(): void {
    this.#start('slurmctld', ['-D', '-f', this.configuration]);
  }

  startNode(): void {
    this.#start('slurmd', ['-D', '-f', this.configuration]);
  }

  /** Its database must run. */
  startAccounting(): void {
    this.#start('slurmdbd', ['-D'], { MYSQL_UNIX_PORT: this.#databaseSocket });
  }

  /** Ends a daemon politely: the controller saves what it knows. */
  async end(daemon: Daemon): Promise<void> {
    await this.#end(daemon, 'SIGTERM');
  }

  /**
   * Waits until the controller has saved a job in a state; it saves some seconds late. @returns what it has saved of all jobs, for
   * `crashController`
   */
  async savedJobs(name: string, state: string): Promise<Buffer> {
    const id = await this.untilJob(name, state);
    const mark = `saved-${randomBytes(8).toString('hex')}`;
    this.run('scontrol', 'update', `JobId=${id}`, `Comment=${mark}`);
    return await until('the controller to save the job', () => {
      const jobs = this.#jobState();
      return jobs.includes(mark) && jobs;
    });
  }

  /**
   * Ends the controller as a crash does.
   * @param jobs what the next one knows of jobs, of `savedJobs`
   */
  async crashController(jobs: Buffer): Promise<void> {
    await this.#end('slurmctld', 'SIGKILL');
    writeFileSync(join(this.directory, 'state', 'job_state'), jobs);
  }

  /** Waits until the controller answers and the node takes jobs. */
  async untilReady(): Promise<void> {
    let seen = '';
    await until(
      'the node of Slurm to take jobs',
      () => {
        const ended = [...this.#daemons].find(([, { running }]) => !running);
        if (ended !== undefined) throw new Error(`${ended[0]} has ended:\n${ended[1].stderr.slice(-4000)}`);
        seen = this.#try('sinfo', '--noheader', '--partition=main', '--format=%t %E');
        if (/^dra?i?n/.test(seen)) throw new Error(`the node of Slurm was taken out of use: ${seen}`);
        return /^(idle|mix) /.test(seen);
      },
      { seen: () => seen },
    );
  }

  /** Runs a command of Slurm. @returns its standard output, without the end of the line */
  run(command: string, ...args: string[]): string {
    return execFileSync(command, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: environment(this.environment),
      timeout: COMMAND_MS,
    }).trim();
  }

  /** Names of the jobs that the controller knows, ended ones too, with their states. */
  jobs(): { id: string; name: string; state: string }[] {
    const lines = this.run('squeue', '--noheader', '--states=all', '--format=%A %j %T').split('\n').filter(Boolean);
    return lines.map((line) => {
      const [id = '', name = '', state = ''] = line.split(' ');
      return { id, name, state };
    });
  }

  /** Waits until the controller has forgotten the jobs of names; see MinJobAge of slurm.conf(5). */
  async untilForgotten(...names: string[]): Promise<void> {
    const known = () => this.jobs().filter(({ name }) => names.includes(name));
    await until(`the controller to forget ${names.join(', ')}`, () => known().length === 0, { seen: known });
  }

  /** Jobs of a name, as the accounts have them. */
  accounts(name: string): { id: string; state: string }[] {
    const which = ['--allocations', '--duplicates', `--name=${name}`, '--starttime=now-1days'];
    const lines = this.run('sacct', '--noheader', '--parsable2', ...which, '--format=JobIDRaw,State').split('\n');
    return lines.filter(Boolean).map((line) => {
      const [id = '', state = ''] = line.split('|');
      return { id, state };
    });
  }

  /** Waits until the job of a name is in a state. @returns its id */
  async untilJob(name: string, state: string): Promise<string> {
    return await until(
      `job ${name} to be ${state}`,
      () => this.jobs().find((job) => job.name === name && job.state === state)?.id,
      { seen: () => this.jobs() },
    );
  }

  /** Ends it and all that it runs. */
  async stop(): Promise<void> {
    this.#try('scancel', '--full', '--signal=KILL', '--user=root');
    for (const daemon of ['slurmd', 'slurmctld', 'slurmdbd', 'mariadbd', 'munged'] as const)
      await this.#end(daemon, 'SIGTERM');
    killProcessesWith(this.directory);
  }

  #jobState(): Buffer {
    try {
      return readFileSync(join(this.directory, 'state', 'job_state'));
    } catch {
      // It has no name for a moment while it is replaced.
      return Buffer.alloc(0);
    }
  }

  #try(command: string, ...args: string[]): string {
    try {
      return this.run(command, ...args);
    } catch {
      return '';
    }
  }

  async #end(daemon: Daemon, signal: NodeJS.Signals): Promise<void> {
    const program = this.#daemons.get(daemon);
    this.#daemons.delete(daemon);
    await program?.stop(signal);
  }

  get #databaseSocket(): string {
    return join(this.directory, 'db.socket');
  }

  /** Makes the database, starts it and the daemon before it, and registers the cluster: without that its controller does not start. */
  async #openAccounting(): Promise<void> {
    const data = ['--no-defaults', `--datadir=${join(this.directory, 'db')}`, '--user=root'];
    execFileSync(MAKE_DATABASE, [...data, '--auth-root-authentication-method=socket', '--skip-test-db'], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: environment(),
      timeout: COMMAND_MS,
    });
    this.#start('mariadbd', [...data, '--skip-networking', `--socket=${this.#databaseSocket}`]);
    await until('the database of the accounts to listen', () => existsSync(this.#databaseSocket));
    this.startAccounting();
    const program = this.#daemons.get('slurmdbd');
    await until('slurmdbd to take the cluster', () => {
      if (program?.running === false) throw new Error(`slurmdbd has ended:\n${program.stderr.slice(-4000)}`);
      return this.#try('sacctmgr', '--immediate', 'add', 'cluster', 'test') !== '';
    });
  }

  #start(daemon: Daemon, args: readonly string[], variables = {}, user?: { uid: number; gid: number }): void {
    const env = environment({ ...this.environment, ...variables });
    // The commands of Slurm are waited for without reading anything else meanwhile.
    const stderrFile = join(this.directory, `${daemon}.log`);
    const options = { argv: [DAEMONS[daemon], ...args] as const, env, cwd: this.directory, stderrFile, ...user };
    this.#daemons.set(daemon, new Program(options));
  }

  /** It insists on a user of its own, and on a directory that nobody else writes to. */
  #startMunge(): void {
    const numberOf = (flag: string) => Number(execFileSync('id', [flag, 'munge'], { encoding: 'utf8' }));
    const user = { uid: numberOf('-u'), gid: numberOf('-g') };
    const home = join(this.directory, 'munge');
    mkdirSync(home, { mode: 0o755 });
    writeFileSync(join(home, 'key'), randomBytes(128), { mode: 0o400 });
    for (const path of [home, join(home, 'key')]) chownSync(path, user.uid, user.gid);
    chmodSync(home, 0o755);
    const files = ['key', 'pid', 'log', 'seed'].map((name) => `--${name}-file=${join(home, name)}`);
    this.#start('munged', ['--foreground', `--socket=${join(home, 'socket')}`, ...files], {}, user);
  }

  async #configure(options: SlurmOptions): Promise<void> {
    const { cpus = 64, batchDelayS = 0, gpus = [], accounting = false, settings = [] } = options;
    const node = hostname().split('.')[0];
    for (const name of ['state', 'spool']) mkdirSync(join(this.directory, name), { mode: 0o755 });
    const [controllerPort, nodePort] = [await freePort(), await freePort()];
    const gres = gpus.length === 0 ? '' : ` Gres=gpu:${gpus.length}`;
    writeFileSync(join(this.directory, 'gres.conf'), gpus.map((path) => `Name=gpu File=${path}\n`).join(''));
    const lines = [
      'ClusterName=test',
      `SlurmctldHost=${node}(127.0.0.1)`,
      `SlurmctldPort=${controllerPort}`,
      `SlurmdPort=${nodePort}`,
      'SlurmUser=root',
      'SlurmdUser=root',
      `AuthInfo=socket=${join(this.directory, 'munge', 'socket')}`,
      `StateSaveLocation=${join(this.directory, 'state')}`,
      `SlurmdSpoolDir=${join(this.directory, 'spool')}`,
      `SlurmctldPidFile=${join(this.directory, 'slurmctld.pid')}`,
      `SlurmdPidFile=${join(this.directory, 'slurmd.pid')}`,
      'ProctrackType=proctrack/linuxproc',
      'TaskPlugin=task/none',
      'MpiDefault=none',
      'SwitchType=switch/none',
      'SelectType=select/cons_tres',
      'SelectTypeParameters=CR_CPU_Memory',
      // More jobs than this host has processors for: most of them only wait.
      'SlurmdParameters=config_overrides',
      `SchedulerParameters=batch_sched_delay=${batchDelayS}`,
      'PreemptType=preempt/partition_prio',
      'PreemptMode=CANCEL',
      'ReturnToService=2',
      'EnforcePartLimits=ALL',
      'KillWait=5',
      ...(accounting ? await this.#configureAccounting() : ['AccountingStorageType=accounting_storage/none']),
      'JobAcctGatherType=jobacct_gather/none',
      ...(gpus.length === 0 ? [] : ['GresTypes=gpu']),
      ...settings,
      `NodeName=${node} NodeAddr=127.0.0.1 CPUs=${cpus} RealMemory=1000000${gres} State=UNKNOWN`,
      `PartitionName=main Nodes=${node} Default=YES MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF`,
      `PartitionName=low Nodes=${node} MaxTime=60 State=UP PriorityTier=1`,
      `PartitionName=high Nodes=${node} MaxTime=60 State=UP PriorityTier=20 PreemptMode=OFF`,
      `PartitionName=closed Nodes=${node} MaxTime=60 State=DOWN`,
    ];
    writeFileSync(this.configuration, `${lines.join('\n')}\n`);
  }

  /** @returns what the controller has to know of it */
  async #configureAccounting(): Promise<string[]> {
    const port = await freePort();
    const lines = [
      'DbdHost=localhost',
      `DbdPort=${port}`,
      'SlurmUser=root',
      `AuthInfo=socket=${join(this.directory, 'munge', 'socket')}`,
      `PidFile=${join(this.directory, 'slurmdbd.pid')}`,
      'StorageType=accounting_storage/mysql',
      // By the socket that MYSQL_UNIX_PORT names.
      'StorageHost=localhost',
      'StorageUser=root',
    ];
    // It may hold a password: nobody else may read it.
    writeFileSync(join(this.directory, 'slurmdbd.conf'), `${lines.join('\n')}\n`, { mode: 0o600 });
    return [
      'AccountingStorageType=accounting_storage/slurmdbd',
      'AccountingStorageHost=127.0.0.1',
      `AccountingStoragePort=${port}`,
      // The commands take munged's socket from here where they ask slurmdbd.
      `AccountingStoragePass=${join(this.directory, 'munge', 'socket')}`,
    ];
  }
}
