#!/usr/bin/env node
// Plain JavaScript for Node 20 and newer: the program itself is TypeScript, which needs Node 24. On an older Node it is
// started with the one that the package `node` pins.
import { spawn } from 'node:child_process';
import module from 'node:module';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { compileCacheDirectory } from './config.mjs';

const FIRST_NODE_WITH_TYPESCRIPT = 24;

if (Number.parseInt(process.versions.node, 10) >= FIRST_NODE_WITH_TYPESCRIPT) {
  module.enableCompileCache(compileCacheDirectory());
  await import('../src/main.ts');
} else {
  runWith(pinnedNode());
}

/** @returns {string} path of the Node that the package `node` holds */
function pinnedNode() {
  try {
    return join(dirname(module.createRequire(import.meta.url).resolve('node/package.json')), 'bin', 'node');
  } catch {
    process.stderr.write(
      `harrier: Node ${process.versions.node} is older than ${FIRST_NODE_WITH_TYPESCRIPT} and the package "node" is not installed; run: npm ci\n`,
    );
    process.exit(1);
  }
}

/** @param {string} node */
function runWith(node) {
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' });
  // A terminal sends SIGINT to the child too; forwarded, it would count as the second one.
  process.on('SIGINT', () => process.stdin.isTTY || child.kill('SIGINT'));
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.once('error', (error) => {
    process.stderr.write(`harrier: ${node} cannot be started: ${error.message}\n`);
    process.exit(1);
  });
  child.once('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.removeAllListeners(name);
    process.kill(process.pid, signal);
  });
}
