import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** As Node.js names it. */
export type Architecture = 'x64' | 'arm64';
export const ARCHITECTURES: readonly Architecture[] = ['x64', 'arm64'];

/** Of the wheels of uv: the C library of the oldest distributions that Node.js runs on. */
const WHEEL_PLATFORMS = { x64: 'manylinux_2_17_x86_64', arm64: 'manylinux_2_28_aarch64' } as const;

/**
 * Puts `bin/node` and `bin/uv` for a platform into the directory, with their licences: from what is installed here where that is of the
 * platform, else from the package registries.
 */
export function addPrograms(root: string, directory: string, architecture: Architecture): void {
  for (const name of ['bin', 'licenses']) mkdirSync(join(directory, name), { recursive: true });
  const scratch = mkdtempSync(join(tmpdir(), 'harrier-bundle-'));
  try {
    addNode(root, directory, architecture, scratch);
    addUv(root, directory, architecture, scratch);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function addNode(root: string, directory: string, architecture: Architecture, scratch: string): void {
  const { version } = JSON.parse(readFileSync(join(root, 'node_modules/node/package.json'), 'utf8'));
  const name = `node-linux-${architecture}`;
  let source = join(root, 'node_modules/node/node_modules', name);
  if (!existsSync(source)) source = join(root, 'node_modules', name);
  if (!existsSync(source)) {
    const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', scratch, `${name}@${version}`]);
    execFileSync('tar', ['-xzf', join(scratch, packed.toString().trim()), '-C', scratch]);
    source = join(scratch, 'package');
  }
  cpSync(join(source, 'bin/node'), join(directory, 'bin/node'));
  cpSync(join(source, 'LICENSE'), join(directory, 'licenses/node.txt'));
}

function addUv(root: string, directory: string, architecture: Architecture, scratch: string): void {
  const version = /^uv==(.+)$/m.exec(readFileSync(join(root, 'requirements-dev.txt'), 'utf8'))?.[1];
  if (version === undefined) throw new Error('requirements-dev.txt does not say which version of uv to take');
  const venv = join(root, '.venv');
  const installed = `uv-${version}.dist-info`;
  const [here] = process.arch === architecture ? globSync(join(venv, 'lib/python*/site-packages', installed)) : [];
  if (here !== undefined) {
    cpSync(join(venv, 'bin/uv'), join(directory, 'bin/uv'));
    cpSync(join(here, 'licenses'), join(directory, 'licenses/uv'), { recursive: true });
    return;
  }
  const platform = ['--platform', WHEEL_PLATFORMS[architecture], '--only-binary', ':all:', '--no-deps'];
  // Who only packs agents has no environment of the checks here.
  const python = existsSync(join(venv, 'bin/python')) ? join(venv, 'bin/python') : 'python3';
  const wanted = `uv==${version}`;
  try {
    execFileSync(python, ['-m', 'pip', 'download', '--quiet', ...platform, '--dest', scratch, wanted], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  } catch (cause) {
    const hint =
      'it takes Python with pip (Debian, Ubuntu: apt-get install python3-pip) and a way to the package index';
    throw new Error(`${wanted} for ${architecture} could not be fetched by ${python}; ${hint}`, { cause });
  }
  const [wheel] = globSync(join(scratch, 'uv-*.whl'));
  if (wheel === undefined) throw new Error(`pip has brought no wheel of uv ${version} for ${architecture}`);
  execFileSync(python, ['-m', 'zipfile', '-e', wheel, join(scratch, 'uv')]);
  cpSync(join(scratch, 'uv', `uv-${version}.data`, 'scripts/uv'), join(directory, 'bin/uv'));
  const licences = join(scratch, 'uv', installed, 'licenses');
  cpSync(existsSync(licences) ? licences : dirname(licences), join(directory, 'licenses/uv'), { recursive: true });
}
