import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

/** Processors that there are agents for, as Node.js names them. */
export const ARCHITECTURES = ['x64', 'arm64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

const NAME = /^harrier-agent-(?<version>[0-9A-Za-z][0-9A-Za-z.+-]{0,63})-linux-(?<architecture>x64|arm64)\.tar\.gz$/;

/** Digests in hexadecimal; undefined: there is no agent for that processor. */
export type Digests = Readonly<Record<Architecture, string | undefined>>;

/** The agents that can be installed from here: files of one directory, which may be replaced at any time. */
export class Bundles {
  readonly directory: string;
  /** SHA-256 by name, size and time of a file: half a second of work each. */
  readonly #digests = new Map<string, Promise<string>>();

  constructor(directory: string) {
    this.directory = directory;
  }

  async digestsOf(version: string): Promise<Digests> {
    const [x64, arm64] = await Promise.all(ARCHITECTURES.map((each) => this.#digestOf(nameOf(version, each))));
    return { x64, arm64 };
  }

  /** Versions that there is at least one agent of; for messages. */
  async versions(): Promise<string[]> {
    const names = await readdir(this.directory).catch(() => []);
    return [...new Set(names.flatMap((name) => NAME.exec(name)?.groups?.version ?? []))].toSorted();
  }

  /** @returns the open file and its size; undefined when the name is not that of an agent, or there is none */
  async open(name: string): Promise<{ file: FileHandle; bytes: number } | undefined> {
    if (!NAME.test(name)) return undefined;
    const file = await open(join(this.directory, name)).catch(ignoreMissing);
    if (file === undefined) return undefined;
    try {
      const status = await file.stat();
      if (status.isFile()) return { file, bytes: status.size };
    } catch (error) {
      await file.close();
      throw error;
    }
    await file.close();
    return undefined;
  }

  async #digestOf(name: string): Promise<string | undefined> {
    const path = join(this.directory, name);
    const status = await stat(path, { bigint: true }).catch(ignoreMissing);
    if (status === undefined || !status.isFile()) return undefined;
    const key = `${name} ${status.ino} ${status.size} ${status.mtimeNs}`;
    const known = this.#digests.get(key) ?? digest(path);
    this.#digests.set(key, known);
    known.catch(() => this.#digests.delete(key));
    return await known;
  }
}

/** The form of a version; anything else is the name of no file. */
export function isVersion(text: string): boolean {
  return NAME.test(nameOf(text, 'x64'));
}

function nameOf(version: string, architecture: Architecture): string {
  return `harrier-agent-${version}-linux-${architecture}.tar.gz`;
}

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
  throw error;
}
