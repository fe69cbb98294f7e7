import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Path of an answer of a driver's tool; testdata/README.md says where each is from. */
export function testdataPath(name: string): string {
  return fileURLToPath(new URL(`../hardware/testdata/${name}`, import.meta.url));
}

export function testdata(name: string): string {
  return readFileSync(testdataPath(name), 'utf8');
}
