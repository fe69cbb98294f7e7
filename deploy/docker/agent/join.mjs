// Gets a token with which the agent on a data directory can join, unless it has joined: what an init container does, which has an
// API key that the agent is not to see. Plain JavaScript without packages, so that it starts at once.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';

const USAGE = 'usage: join.mjs --server URL --key-file FILE --data-dir DIRECTORY --token-file FILE';
const NAMES = ['server', 'key-file', 'data-dir', 'token-file'];
/** The agent that waits for it starts right after. */
const TTL = '600s';
const TIMEOUT_MS = 30_000;

try {
  const options = readOptions();
  const token = isJoined(options['data-dir']) ? '' : await createToken(options.server, options['key-file']);
  writeFileSync(options['token-file'], token, { mode: 0o600 });
} catch (error) {
  process.stderr.write(`join: ${error.message}\n`);
  process.exitCode = 1;
}

function readOptions() {
  const { values } = parseArgs({ options: Object.fromEntries(NAMES.map((name) => [name, { type: 'string' }])) });
  const missing = NAMES.filter((name) => !values[name]);
  if (missing.length > 0) throw new Error(`${missing.map((name) => `--${name}`).join(', ')} missing; ${USAGE}`);
  return values;
}

/** As the agent keeps it: see agent/src/identity/agent-identity.ts. */
function isJoined(dataDirectory) {
  const path = join(dataDirectory, 'identity.json');
  if (!existsSync(path)) return false;
  try {
    return JSON.parse(readFileSync(path, 'utf8')).agentId !== '';
  } catch {
    // The agent says what is wrong with it.
    return true;
  }
}

async function createToken(server, keyFile) {
  // Several with commas are replicas of one control plane.
  const [first = ''] = server.split(',');
  const url = `${first.trim().replace(/\/+$/, '')}/agents/join-tokens`;
  const key = readFileSync(keyFile, 'utf8').trim();
  const response = await fetch(url, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ ttl: TTL }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch((error) => {
    throw new Error(`${url} cannot be reached: ${error.cause?.message ?? error.message}`);
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${text.slice(0, 500)}`);
  return JSON.parse(text).token;
}
