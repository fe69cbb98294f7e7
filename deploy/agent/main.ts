// Packs agents for hosts without npm: `npm run build:agent -- [x64|arm64 …]`. The control plane serves what is in `bundles/`.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildBundle } from './bundle.ts';
import { ARCHITECTURES, type Architecture } from './platform-files.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const COMPRESSION = 9;

const wanted = process.argv.length > 2 ? process.argv.slice(2) : ['x64'];
const unknown = wanted.find((name) => !ARCHITECTURES.includes(name as Architecture));
if (unknown === undefined) {
  for (const architecture of wanted as Architecture[]) {
    const output = join(ROOT, 'bundles');
    const { path, sha256, bytes } = await buildBundle({ root: ROOT, architecture, output, compression: COMPRESSION });
    process.stdout.write(`${path}\n  ${(bytes / 1e6).toFixed(1)} MB, SHA-256 ${sha256}\n`);
  }
} else {
  process.stderr.write(`npm run build:agent: there is no "${unknown}"; there are ${ARCHITECTURES.join(' and ')}\n`);
  process.exitCode = 1;
}
