import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { EnvironmentError } from './environment.ts';
import { isWithin, plainUrl, shownUrl } from './url-scope.ts';

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
  const own = plainUrl(policy.indexUrl) ?? policy.indexUrl;
  const allowed = policy.allowed.map((one) => plainUrl(one) ?? one);
  const urls = [indexUrl || own, ...extra].map((text) => {
    const url = text === own ? own : plainUrl(text);
    if (url === undefined) throw denied(`"${shownUrl(text)}" is not the plain http(s) URL of a package index`);
    if (url === own || allowed.some((one) => one === '*' || isWithin(url, one))) return url;
    throw denied(`the package index ${shownUrl(url)} is not in HARRIER_AGENT_ALLOWED_INDEXES`);
  });
  const hosts = new Set<string>();
  for (const url of urls) {
    const { hostname, port, protocol } = new URL(url);
    hosts.add(`${hostname}:${port || (protocol === 'http:' ? 80 : 443)}`);
    for (const host of KNOWN_FILE_HOSTS[hostname] ?? []) hosts.add(`${host}:443`);
  }
  for (const host of policy.fileHosts) hosts.add(host);
  return { urls, hosts: [...hosts] };
}

/** An index with a password: build scripts of packages must not run where it can be seen. */
export function hasCredentials({ urls }: ChosenIndexes): boolean {
  return urls.some((url) => new URL(url).username !== '' || new URL(url).password !== '');
}

function denied(message: string): EnvironmentError {
  return new EnvironmentError(Code.POLICY_DENIED, message);
}
