import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeDurably } from './disk.ts';

/** Beside the tree, written last: what has one is complete. */
export const MANIFEST = 'manifest.json';
const FORMAT = 1;

/** What is known of a stored environment. */
export interface Manifest {
  /** Names this very directory: it differs when the same environment is built again. */
  build: string;
  kind: string;
  /** What was installed, as text; see `Environment` of the schema. */
  lock: string;
  /** Digests of unresolved requests that led to it. */
  requests: string[];
  sizeBytes: number;
  /** What the provider needs to run it. */
  facts: Record<string, string>;
  /** `Built.finish` was not done to its end; the next agent that uses it does so. */
  unfinished?: true;
  /**
   * The start of the system in which it was built, as long as its files may not be on the disk yet: what they hold is certain
   * until the system goes down. Absent once they are.
   */
  boot?: string;
}

/** Names this start of the system. */
export const BOOT = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

/** @throws when the environment is not complete, or of another version of the store */
export async function readManifest(directory: string): Promise<Manifest> {
  const manifest = JSON.parse(await readFile(join(directory, MANIFEST), 'utf8')) as Manifest & { format: number };
  if (manifest.format !== FORMAT) throw new Error(`its format is ${manifest.format}, not ${FORMAT}`);
  if (manifest.boot !== undefined && manifest.boot !== BOOT)
    throw new Error('the system went down before it was written');
  return manifest;
}

export async function writeManifest(directory: string, manifest: Manifest): Promise<void> {
  await writeDurably(join(directory, MANIFEST), JSON.stringify({ ...manifest, format: FORMAT }));
}
