import { readFile } from 'node:fs/promises';
import { messageOf } from '@harrier/shared';

/** What the engine hands on to a registry. */
export type RegistryCredentials =
  | { username: string; password: string; serveraddress: string }
  | { identitytoken: string; serveraddress: string };

export class CredentialsError extends Error {
  constructor(path: string, why: string) {
    super(`HARRIER_AGENT_DOCKER_CONFIG: ${path} ${why}`);
    this.name = 'CredentialsError';
  }
}

interface AuthEntry {
  auth?: unknown;
  username?: unknown;
  password?: unknown;
  identitytoken?: unknown;
}

/** Keys under which `docker login` stores the credentials of Docker Hub. */
const DOCKER_HUB = ['https://index.docker.io/v1/', 'index.docker.io', 'docker.io', 'registry-1.docker.io'];

/**
 * Credentials for a registry from a `config.json` of Docker (`docker login` writes it). Read for each pull, so that a
 * renewed token counts at once. Messages never hold what the file holds.
 * @param registry as in a reference: `docker.io`, `registry.example.com:5000`
 * @returns undefined when the file names none for the registry
 * @throws CredentialsError when the file cannot be read, or leaves the credentials to a helper program
 */
export async function registryCredentials(path: string, registry: string): Promise<RegistryCredentials | undefined> {
  const config = await readConfig(path);
  const [key, entry] = entryFor(config.auths, registry) ?? [];
  if (key !== undefined && entry !== undefined) {
    const credentials = credentialsOf(entry, key);
    if (credentials !== undefined) return credentials;
  }
  const helper = entryFor(config.credHelpers, registry)?.[1] ?? (entry === undefined ? undefined : config.credsStore);
  if (helper !== undefined) {
    throw new CredentialsError(path, `leaves the credentials for ${registry} to a helper program, which is not run`);
  }
  return undefined;
}

interface DockerConfig {
  auths?: Record<string, AuthEntry>;
  credHelpers?: Record<string, unknown>;
  credsStore?: unknown;
}

async function readConfig(path: string): Promise<DockerConfig> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new CredentialsError(path, `cannot be read: ${messageOf(error)}`);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // The parser's message would quote the file.
  }
  throw new CredentialsError(path, 'is not JSON of the form {"auths": {…}}');
}

function entryFor<T>(entries: Record<string, T> | undefined, registry: string): [string, T] | undefined {
  const wanted = registry === 'docker.io' ? DOCKER_HUB : [registry];
  return Object.entries(entries ?? {}).find(([key]) => {
    const host = key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
    return wanted.includes(key) || wanted.includes(host);
  });
}

function credentialsOf(entry: AuthEntry, serveraddress: string): RegistryCredentials | undefined {
  if (typeof entry.identitytoken === 'string' && entry.identitytoken !== '') {
    return { identitytoken: entry.identitytoken, serveraddress };
  }
  if (typeof entry.auth === 'string' && entry.auth !== '') {
    const text = Buffer.from(entry.auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1), serveraddress };
  }
  const { username, password } = entry;
  if (typeof username === 'string' && typeof password === 'string') return { username, password, serveraddress };
  return undefined;
}
