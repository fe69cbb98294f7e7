import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { VERSION } from '@harrier/shared';
import type { SystemdHost } from './systemd-host.ts';
import { directory, REPOSITORY } from './workspace.ts';

/** Where people get the sources from, as the page about installing says. */
const URL = 'https://example.org/harrier.git';
const AUTHOR = ['-c', 'user.name=test', '-c', 'user.email=test@example.org'];

/**
 * The product as people get it: a git repository with a tag for each version, and what the product needs of the registries of npm and
 * PyPI, brought here by installing it once. A host has them without a network.
 */
export class Releases {
  /** Directories of this host that the other one has to have read-only, by where. */
  readonly binds: Readonly<Record<string, string>>;
  /** The same, which it may write to: npm finds nothing in a cache that it cannot write to. */
  readonly writable: Readonly<Record<string, string>>;
  readonly #tree = directory('tree');
  readonly #wheels = directory('wheels');
  readonly #packages = directory('packages');

  /** Has this version, with all that is tracked as it lies here. @throws Error when npm here cannot be lent, or cannot install it */
  constructor() {
    const npm = npmDirectory();
    const copy = 'git -C "$0" ls-files -z | tar -C "$0" --null --files-from=- --create | tar -C "$1" --extract';
    execFileSync('bash', ['-e', '-o', 'pipefail', '-c', copy, REPOSITORY, this.#tree]);
    execFileSync('git', ['init', '--quiet', '--initial-branch=main', this.#tree]);
    this.#publish(VERSION);
    const uv = /^uv==.+$/m.exec(readFileSync(join(REPOSITORY, 'requirements-dev.txt'), 'utf8'))?.[0] ?? 'uv';
    const python = join(REPOSITORY, '.venv/bin/python');
    execFileSync(python, ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', this.#wheels, uv]);
    this.#fetchPackages();
    this.binds = {
      '/srv/harrier.git': join(this.#tree, '.git'),
      '/srv/wheels': this.#wheels,
      '/opt/npm': npm,
      '/opt/node': dirname(dirname(process.execPath)),
    };
    this.writable = { '/var/cache/npm': this.#packages };
  }

  /** Adds a version that differs from the one before in nothing but its number. */
  release(version: string): void {
    const path = join(this.#tree, 'shared/package.json');
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, text.replace(`"version": "${VERSION}"`, `"version": "${version}"`));
    this.#publish(version);
  }

  /** Makes what there is on most hosts of somebody who installs a control plane: git, npm, and a way to the registries. */
  async offer(host: SystemdHost): Promise<void> {
    await host.shell(`
      set -e
      ln -s /opt/npm/bin/npm-cli.js /usr/local/bin/npm
      ln -s /opt/node/bin/node /usr/local/bin/node
      printf 'registry=${output('npm', ['config', 'get', 'registry'])}\\ncache=/var/cache/npm\\noffline=true\\nupdate-notifier=false\\nlogs-max=0\\n' > /root/.npmrc
      printf '[global]\\nno-index = true\\nfind-links = /srv/wheels\\n' > /etc/pip.conf
      git config --system url./srv/harrier.git.insteadOf ${URL}`);
  }

  /** Installs it once, with the scripts of its packages, which fetch more: the cache then has all that a host asks for. */
  #fetchPackages(): void {
    const copy = directory('copy');
    execFileSync('git', ['clone', '--quiet', this.#tree, copy]);
    execFileSync('npm', ['ci', '--omit=dev', '--no-audit', '--no-fund', '--cache', this.#packages], {
      cwd: copy,
      // What it says is in the error.
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    rmSync(copy, { recursive: true });
  }

  #publish(version: string): void {
    const git = (...args: string[]): void => void execFileSync('git', ['-C', this.#tree, ...AUTHOR, ...args]);
    git('add', '--all', '--force');
    git('commit', '--quiet', '--message', version);
    git('tag', `v${version}`);
  }
}

/** Where npm lies here, with all that it needs. @throws Error when it would not run elsewhere */
function npmDirectory(): string {
  const found = realpathSync(output('which', ['npm']));
  const at = dirname(dirname(found));
  const hint = 'install one with: npm install --global npm@11';
  for (const file of ['package.json', 'bin/npm-cli.js']) {
    if (!existsSync(join(at, file)))
      throw new Error(`${found} is no npm that a host can be lent: no ${file} in ${at}; ${hint}`);
  }
  const { dependencies } = JSON.parse(readFileSync(join(at, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  // Debian's own package has them beside it.
  const missing = Object.keys(dependencies).filter((name) => !existsSync(join(at, 'node_modules', name)));
  if (missing.length > 0)
    throw new Error(
      `${at} is no npm that a host can be lent: without ${missing.join(', ')} in its node_modules; ${hint}`,
    );
  return at;
}

function output(command: string, args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
}
