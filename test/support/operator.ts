import { buildBundle } from '../../deploy/agent/bundle.ts';
import type { Architecture } from '../../deploy/agent/platform-files.ts';
import type { Exit } from './program.ts';
import type { Releases } from './releases.ts';
import { Runbook } from './runbook.ts';
import { type Disks, SystemdHost } from './systemd-host.ts';
import { until } from './wait.ts';
import { directory, REPOSITORY } from './workspace.ts';

const HOME = '/opt/harrier/control-plane';
const CERTIFICATE = '/usr/local/share/ca-certificates/harrier-test.crt';
/** The id of the host's boot, once more. */
const BOOT_ID = '/run/boot-id';
/** What people have who follow the pages of docs/operations. */
const PACKAGES = ['sudo', 'openssh-server', 'openssh-client', 'jq', 'openssl', 'postgresql', 'xfsprogs'];
/** What those have beside who install the sources. */
const RELEASE_PACKAGES = ['git', 'python3-pip'];
/** More than the longest command takes on a busy machine; what needs longer hangs. */
const COMMAND_MS = 480_000;

/**
 * A host by the name `gpu-7` that systemd has booted, with a control plane at https://harrier.example:8000 and somebody who operates
 * it: with the command, sudo, and ssh to the host itself. The page about installing is followed for it.
 */
export class Operator {
  readonly host: SystemdHost;
  readonly variables: Record<string, string>;

  private constructor(host: SystemdHost) {
    this.host = host;
    this.variables = {
      HOME: '/home/ops',
      PATH: `${HOME}/node_modules/.bin:/usr/local/bin:/usr/bin:/bin`,
      LANG: 'C.UTF-8',
      HARRIER_SERVER_URL: 'https://harrier.example:8000',
      NODE_EXTRA_CA_CERTS: CERTIFICATE,
    };
  }

  /** Has a copy of this repository for the sources and their packages. @param disks file systems of its own, by where */
  static async boot(disks: Disks = {}): Promise<Operator> {
    const bundles = directory('bundles');
    const [host] = await Promise.all([
      SystemdHost.boot({
        binds: { [HOME]: REPOSITORY, '/opt/harrier/bundles': bundles },
        disks,
        packages: PACKAGES,
        alone: { name: 'gpu-7' },
      }),
      buildBundle({ root: REPOSITORY, architecture: process.arch as Architecture, output: bundles, compression: 1 }),
    ]);
    return await Operator.#prepare(host, async (operator) => {
      await operator.#settle();
      await operator.#startCopy();
    });
  }

  /** Installs the control plane from its sources. @param writable directories of this host that it may write to, by where */
  static async bootWith(releases: Releases, writable: Readonly<Record<string, string>>): Promise<Operator> {
    const host = await SystemdHost.boot({
      ...{ binds: releases.binds, writable: { ...releases.writable, ...writable }, alone: { name: 'gpu-7' } },
      packages: [...PACKAGES, ...RELEASE_PACKAGES],
    });
    return await Operator.#prepare(host, async (operator) => {
      await releases.offer(host);
      await operator.#settle();
      const [whole, bundles] = new Runbook('install').blocks('The control plane', 2);
      await operator.run(`${whole}\n${bundles}`);
      await operator.takeKey();
    });
  }

  /** Nobody else knows of the host when its preparation fails: it is stopped then. */
  static async #prepare(host: SystemdHost, steps: (operator: Operator) => Promise<void>): Promise<Operator> {
    const operator = new Operator(host);
    try {
      await steps(operator);
    } catch (error) {
      // Why it was not prepared says more than why it does not stop; the end of the run removes what is left of it.
      await Promise.allSettled([host.stop()]);
      throw error;
    }
    return operator;
  }

  /** Runs a script as the person, as in a shell where the first command that fails is seen. Never throws for one that fails. */
  async try(script: string): Promise<Exit & { stdout: string; stderr: string }> {
    const variables = Object.entries(this.variables).map(([name, value]) => `${name}=${value}`);
    return await this.host.run(
      [
        'runuser',
        '-u',
        'ops',
        '--',
        'env',
        '--chdir=/home/ops',
        ...variables,
        'bash',
        '-e',
        '-o',
        'pipefail',
        '-c',
        script,
      ],
      { deadlineMs: COMMAND_MS },
    );
  }

  /** What a script writes to its standard output. @throws Error with all that it says, when it fails */
  async run(script: string): Promise<string> {
    const { code, stdout, stderr } = await this.try(script);
    if (code !== 0) throw new Error(`this ended with code ${code}:\n${script}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Sets a variable of the person's shell from now on. */
  set(name: string, value: string): void {
    this.variables[name] = value;
  }

  /** Takes the key of the control plane that runs now. */
  async takeKey(): Promise<void> {
    this.set('HARRIER_API_KEY', await this.host.shell('cat /var/lib/harrier-control-plane/admin.key'));
  }

  /** Installs the agent of this host as the page says of those without a terminal, and waits until it is online. */
  async installAgent(): Promise<void> {
    const [, afar] = new Runbook('install').blocks('An agent', 2);
    await this.run(afar.replaceAll('HOST', 'gpu-7'));
    await this.untilAgent('gpu-7', 'ONLINE');
  }

  /**
   * Runs a script as the person does at a terminal, who types the answer when the question is to be seen.
   * @returns all that was to be seen. @throws Error with that, when it fails
   */
  async runAtTerminal(script: string, question: string, answer: string): Promise<string> {
    return await this.run(`
      cd "$(mktemp --directory)"
      trap 'cat screen' EXIT
      mkfifo keys
      cat > script <<'END'\n${script}\nEND
      script --quiet --flush --return --command 'sh script' screen < keys > /dev/null &
      exec 3> keys
      until grep --quiet --fixed-strings '${question}' screen; do
        kill -0 $!
        sleep 0.2
      done
      printf '%s\\n' '${answer}' >&3
      wait $!`);
  }

  /** Starts an agent beside that of the host, for work that the host does not take. */
  async startOtherAgent(): Promise<void> {
    const token = (await this.run('harrier agents token')).trim();
    const settings = { ...this.variables, HOME: '/var/lib/gpu-8', HARRIER_JOIN_TOKEN: token, HARRIER_API_KEY: '' };
    const flags = Object.entries(settings).map(([name, value]) => `--setenv=${name}=${value}`);
    await this.host.shell(`
      set -e
      install --directory --owner=ops --mode=0700 /var/lib/gpu-8
      systemd-run --quiet --unit=gpu-8 --property=User=ops --property=Delegate=yes ${flags.join(' ')} \\
        ${HOME}/node_modules/.bin/harrier agent --name gpu-8 --data-dir /var/lib/gpu-8 --metrics-listen 127.0.0.1:0`);
    await this.untilAgent('gpu-8', 'ONLINE');
  }

  async untilAgent(name: string, state: string): Promise<void> {
    let seen: unknown;
    await until(
      `agent ${name} to be ${state}`,
      async () => {
        const { code, stdout, stderr } = await this.try(`harrier agents get ${name} --json`);
        seen = code === 0 ? JSON.parse(stdout).state : stderr;
        return seen === state;
      },
      { seen: () => seen },
    );
  }

  /** Has code run, without waiting for it. @param fields beside the source @returns the id */
  async start(source: string, fields: object = {}): Promise<string> {
    const request = JSON.stringify({ code: { source }, ...fields });
    const answer = await this.run(`curl --fail-with-body -sS -H "Authorization: Bearer $HARRIER_API_KEY" \\
      -H 'Content-Type: application/json' --data-binary @- "$HARRIER_SERVER_URL/executions" <<'END'\n${request}\nEND`);
    return JSON.parse(answer).id;
  }

  // biome-ignore lint/suspicious/noExplicitAny: the execution as the command prints it.
  async execution(id: string): Promise<any> {
    return JSON.parse(await this.run(`harrier executions get ${id} --json`));
  }

  async untilExecution(id: string, state: string): Promise<void> {
    let seen: unknown;
    await until(
      `execution ${id} to be ${state}`,
      async () => {
        seen = await this.execution(id);
        return (seen as { state: string }).state === state;
      },
      { seen: () => seen },
    );
  }

  /** Runs a step that has the host boot, and waits until its agent tells of another boot. */
  async reboot(script: string): Promise<void> {
    const before = await this.#bootId();
    if (before === '') throw new Error('the agent does not tell which boot it runs in');
    // Who has asked for it may go with the host before there is an answer.
    const { stdout, stderr } = await this.try(script);
    await this.host.bootAgain().catch((error) => {
      throw new Error(`after this the host did not boot:\n${script}\n${stdout}${stderr}`, { cause: error });
    });
    let seen: unknown;
    await until(
      'the agent to tell of another boot',
      async () => {
        seen = await this.#bootId();
        return seen !== '' && seen !== before;
      },
      { seen: () => seen },
    );
  }

  /** As the agent of the host has told it; empty while it has not, or the control plane does not answer. */
  async #bootId(): Promise<string> {
    const { stdout } = await this.try('harrier agents get gpu-7 --json | jq -r ".hardware.bootId // empty"');
    return stdout.trim();
  }

  async stop(): Promise<void> {
    await this.host.stop();
  }

  async #settle(): Promise<void> {
    await this.host.shell(`
      set -e
      useradd --create-home --shell /bin/bash ops
      echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops
      echo '127.0.0.1 localhost gpu-7 gpu-1 gpu-2 gpu-3 harrier.example DB' > /etc/hosts
      mkdir -p /etc/harrier /etc/systemd/system.conf.d
      openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=harrier.example -addext subjectAltName=DNS:harrier.example \\
        -keyout /etc/harrier/tls.key -out ${CERTIFICATE} 2>/dev/null
      cp ${CERTIFICATE} /etc/harrier/tls.crt
      chmod 0644 /etc/harrier/tls.key
      update-ca-certificates >/dev/null 2>&1
      # As if a public authority had signed it: Node.js has a list of its own.
      printf '[Manager]\\nDefaultEnvironment=NODE_EXTRA_CA_CERTS=${CERTIFICATE}\\n' > /etc/systemd/system.conf.d/ca.conf
      # The agent's unit covers /proc/sys, and with it what systemd-nspawn shows there: it would see the boot of the kernel, which is
      # that of this machine, in the place of the boot of its host.
      echo 'C ${BOOT_ID} - - - - /proc/sys/kernel/random/boot_id' > /etc/tmpfiles.d/boot-id.conf
      systemd-tmpfiles --create boot-id.conf
      mkdir /etc/systemd/system/harrier-agent.service.d
      printf '[Service]\\nBindReadOnlyPaths=${BOOT_ID}:/proc/sys/kernel/random/boot_id\\n' \\
        > /etc/systemd/system/harrier-agent.service.d/boot-id.conf
      systemctl daemon-reexec`);
    await this.run(`
      ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
      for host in gpu-7 gpu-1 gpu-2 gpu-3; do
        printf '%s ' "$host"
        cat /etc/ssh/ssh_host_ed25519_key.pub
      done > ~/.ssh/known_hosts`);
  }

  /** As the page says, but for the first two lines: a copy of the repository with its packages lies there. */
  async #startCopy(): Promise<void> {
    const [whole] = new Runbook('install').blocks('The control plane', 2);
    const [clone, packages, ...rest] = whole.split('\n');
    if (!clone?.includes('git clone') || !packages?.includes('npm ci'))
      throw new Error(`install.md begins otherwise:\n${whole}`);
    await this.run(`sudo mkdir -p /etc/systemd/system/harrier-control-plane.service.d
      printf '[Service]\\nEnvironment=HARRIER_AGENT_BUNDLES=/opt/harrier/bundles\\n' |
        sudo tee /etc/systemd/system/harrier-control-plane.service.d/bundles.conf >/dev/null
      cd ${HOME}
      ${rest.join('\n')}`);
    await this.takeKey();
  }
}
