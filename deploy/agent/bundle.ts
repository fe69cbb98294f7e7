import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { type LockedPackages, runtimeClosure } from './dependencies.ts';
import { type Architecture, addPrograms } from './platform-files.ts';

export interface BundleOptions {
  /** The repository, with `node_modules`. */
  root: string;
  architecture: Architecture;
  /** Directory of the result. */
  output: string;
  /** Of gzip, 1 to 9. */
  compression: number;
  /** Changes the files before they are packed; for tests, which need other versions. */
  change?: (directory: string) => void;
}

export interface Bundle {
  path: string;
  version: string;
  sha256: string;
  bytes: number;
}

/** All files have the same time, so that the same sources make the same bytes; tar warns of times before 1970 and in the future. */
const TIME = '@946684800';
const SELF = ['harrier-agent.service', 'harrier-launcher.service'];

/**
 * Packs an agent with everything that it needs on a host but Python, bubblewrap and systemd: its sources, the packages that they use,
 * Node.js and uv. The same sources make the same file.
 */
export async function buildBundle(options: BundleOptions): Promise<Bundle> {
  const { root, architecture, output, compression, change } = options;
  const scratch = mkdtempSync(join(tmpdir(), 'harrier-bundle-'));
  try {
    const directory = join(scratch, 'harrier-agent');
    stage(root, directory, architecture);
    change?.(directory);
    const { version } = JSON.parse(readFileSync(join(directory, 'shared/package.json'), 'utf8')) as { version: string };
    const path = join(output, `harrier-agent-${version}-linux-${architecture}.tar.gz`);
    mkdirSync(output, { recursive: true });
    const { sha256, bytes } = await pack(directory, `${path}.new`, compression);
    renameSync(`${path}.new`, path);
    return { path, version, sha256, bytes };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function stage(root: string, directory: string, architecture: Architecture): void {
  mkdirSync(directory);
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: LockedPackages;
  };
  for (const folder of runtimeClosure(packages, ['agent'])) {
    const from = join(root, folder);
    cpSync(from, join(directory, folder), {
      recursive: true,
      filter: (path) => isNeeded(relative(from, path), architecture) && !isCompiledHere(path),
    });
  }
  mkdirSync(join(directory, 'node_modules/@harrier'), { recursive: true });
  symlinkSync('../../shared', join(directory, 'node_modules/@harrier/shared'));
  cpSync(join(root, 'deploy/runners'), join(directory, 'deploy/runners'), { recursive: true });
  cpSync(join(root, 'LICENSE'), join(directory, 'LICENSE'));
  mkdirSync(join(directory, 'systemd'));
  for (const name of SELF) cpSync(join(root, 'systemd', name), join(directory, 'systemd', name));
  mkdirSync(join(directory, 'docs'));
  for (const name of ['install.md', 'upgrade.md'])
    cpSync(join(root, 'docs/operations', name), join(directory, 'docs', name));
  addPrograms(root, directory, architecture);
  cpSync(join(root, 'deploy/agent/install.sh'), join(directory, 'bin/harrier-agent-ctl'));
  // Scripts of the runners are modules as they are in the repository.
  writeFileSync(join(directory, 'package.json'), `${JSON.stringify({ private: true, type: 'module' })}\n`);
}

/** @param path of a file or directory, relative to its package */
function isNeeded(path: string, architecture: Architecture): boolean {
  const name = basename(path);
  if (/^(node_modules|tests?|__tests__|__pycache__|test-support|examples?|\.github)$/.test(name)) return false;
  if (/\.(test\.ts|d\.[cm]?ts|map|md|markdown|pyc|o)$/.test(name) || name === 'tsconfig.json') return false;
  const platform = /^prebuilds\/([^/]+)/.exec(path)?.[1];
  return platform === undefined || platform === `linux-${architecture}`;
}

/** What npm has compiled on this host, for it; the packages go without. @param path of a file or directory */
function isCompiledHere(path: string): boolean {
  return basename(path) === 'build' && existsSync(join(dirname(path), 'binding.gyp'));
}

async function pack(directory: string, path: string, compression: number): Promise<{ sha256: string; bytes: number }> {
  const tar = spawn(
    'tar',
    [
      ...['--create', '--format=gnu', '--sort=name', `--mtime=${TIME}`, '--mode=u=rwX,go=rX'],
      ...['--owner=0', '--group=0', '--numeric-owner', '--directory', join(directory, '..'), basename(directory)],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' } },
  );
  const ended = new Promise<number | null>((resolve, reject) => tar.once('error', reject).once('close', resolve));
  const hash = createHash('sha256');
  let bytes = 0;
  const measure = new Transform({
    transform(chunk: Buffer, _, done) {
      hash.update(chunk);
      bytes += chunk.length;
      done(null, chunk);
    },
  });
  const [code] = await Promise.all([
    ended,
    pipeline(tar.stdout, createGzip({ level: compression }), measure, createWriteStream(path)),
  ]);
  if (code !== 0) throw new Error(`tar ended with code ${code}`);
  return { sha256: hash.digest('hex'), bytes };
}
