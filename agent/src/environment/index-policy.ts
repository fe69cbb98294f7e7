import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { EnvironmentError } from './environment.ts';

/** The package indexes that an agent lets builds use. */
export interface IndexPolicy {
  /** Where a request names none. */
  indexUrl: string;
  /** Further ones that a request may name, each the whole URL or its beginning. `*`: any. */
  allowed: readonly string[];
  /** Whether a request may name several, any of which could answer for any name. */
  allowExtra: boolean;
  /** Hosts that the indexes send to for files. */
  fileHosts: readonly string[];
}

/** The public index keeps its files elsewhere. */
const KNOWN_FILE_HOSTS: Readonly<Record<string, readonly string[]>> = { 'pypi.org': ['files.pythonhosted.org'] };

export interface ChosenIndexes {
  urls: string[];
  /** What a build may reach: `HOST:PORT`. */
  hosts: string[];
}

/**
 * The indexes for a request, the first that it names or the agent's own.
 * @throws EnvironmentError POLICY_DENIED, naming the setting
 */
export function chooseIndexes(policy: IndexPolicy, indexUrl: string, extra: readonly string[]): ChosenIndexes {
  if (extra.length > 0 && !policy.allowExtra) {
    throw denied(
      `extra_index_urls asks for ${extra.length === 1 ? 'a second index' : `${extra.length} further indexes`}, any of which could answer for any package; HARRIER_AGENT_ALLOW_EXTRA_INDEX does not allow it`,
    );
  }
  const urls = [indexUrl || policy.indexUrl, ...extra];
  for (const url of urls) {
    if (url === policy.indexUrl || policy.allowed.some((one) => one === '*' || isWithin(url, one))) continue;
    throw denied(`the package index ${withoutCredentials(url)} is not in HARRIER_AGENT_ALLOWED_INDEXES`);
  }
  const hosts = new Set<string>();
  for (const url of urls) {
    const { hostname, port, protocol } = new URL(url);
    hosts.add(`${hostname}:${port || (protocol === 'http:' ? 80 : 443)}`);
    for (const host of KNOWN_FILE_HOSTS[hostname] ?? []) hosts.add(`${host}:443`);
  }
  for (const host of policy.fileHosts) hosts.add(host);
  return { urls, hosts: [...hosts] };
}

/** For messages and logs: an index may carry a password. */
export function withoutCredentials(url: string): string {
  return url.replace(/\/\/[^/@]*@/, '//…@');
}

/** `https://a/b` is within `https://a`, and `https://a.evil` is not. */
export function isWithin(url: string, allowed: string): boolean {
  const beginning = allowed.replace(/\/+$/, '');
  return url === beginning || url.startsWith(`${beginning}/`);
}

function denied(message: string): EnvironmentError {
  return new EnvironmentError(Code.POLICY_DENIED, message);
}
