import { readFile } from 'node:fs/promises';
import { isSecret, messageOf, withoutCredentials } from '@harrier/shared';
import type { Command } from 'commander';
import { adminKeyPath, readEnvironment } from '../config.ts';
import { CliError } from '../failure.ts';

/** Flags of every command that talks to a control plane. */
export interface ConnectionFlags {
  server?: string;
  keyFile?: string;
  json?: true;
}

/** A control plane and the credential for it. */
export interface Connection {
  url: string;
  key: string;
  /** Where the key came from, for people. */
  keySource: string;
}

export function addConnectionOptions(command: Command): Command {
  return command
    .option('--server <url>', 'control plane (HARRIER_SERVER_URL, default http://127.0.0.1:8000)')
    .option(
      '--key-file <file>',
      'file with an API key (HARRIER_API_KEY, else admin.key in HARRIER_DATA_DIR or ./.harrier)',
    )
    .option('--json', 'answer in JSON, for programs');
}

/** @throws CliError when there is no usable address or key */
export async function readConnection(flags: ConnectionFlags): Promise<Connection> {
  const environment = readEnvironment();
  const url = flags.server ?? environment.serverUrl;
  if (!isAddress(url)) {
    throw new CliError(`the control plane's address must be http(s)://HOST[:PORT], not "${withoutCredentials(url)}"`);
  }
  if (flags.keyFile === undefined && environment.apiKey !== undefined) {
    return { url, key: environment.apiKey, keySource: 'HARRIER_API_KEY' };
  }
  const path = flags.keyFile ?? adminKeyPath(environment.dataDirectory);
  const key = (await readKey(path, flags.keyFile !== undefined)).trim();
  if (!/^[\x21-\x7e]+$/.test(key)) throw new CliError(`${path} does not hold an API key: one line of text`);
  return { url, key, keySource: path };
}

/** A user and a password would be told in every message about the address, and reach nobody. */
function isAddress(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, search } = new URL(text);
  return /^https?:$/.test(protocol) && username === '' && password === '' && search === '';
}

async function readKey(path: string, asked: boolean): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (isSecret(path)) throw new CliError('--key-file must name a file, and is a key itself', undefined, { cause });
    const why = (cause as NodeJS.ErrnoException).code === 'ENOENT' ? `${path} does not exist` : messageOf(cause);
    const cure = asked
      ? ''
      : '\nset HARRIER_API_KEY, name a file with --key-file, or run where `harrier up` was started (HARRIER_DATA_DIR)';
    throw new CliError(`there is no API key: ${why}${cure}`, undefined, { cause });
  }
}
