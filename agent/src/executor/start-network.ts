import { type Limits, Limits_Network as Network } from '@harrier/shared/gen/module';
import type { StartNetwork } from '../launcher/messages.ts';

/** Where an index keeps its files, when that is another host. */
const FILE_HOSTS: Readonly<Record<string, string>> = { 'pypi.org:443': 'files.pythonhosted.org:443' };
const PORTS: Readonly<Record<string, string>> = { 'https:': '443', 'http:': '80' };

/** What a call may reach, as the launcher takes it; undefined: nothing. */
export function startNetwork(limits: Limits | undefined, indexUrl: string): StartNetwork | undefined {
  switch (limits?.network) {
    case Network.INDEX:
      return { mode: 'hosts', hosts: indexHosts(indexUrl) };
    case Network.EGRESS:
      return { mode: 'hosts', hosts: limits.egressHosts };
    case Network.FULL:
      return { mode: 'full' };
    default:
      return undefined;
  }
}

/** The hosts of a package index, each with its port. */
export function indexHosts(indexUrl: string): string[] {
  const { protocol, hostname, port } = new URL(indexUrl);
  const host = `${hostname}:${port || PORTS[protocol]}`;
  const files = FILE_HOSTS[host];
  return files === undefined ? [host] : [host, files];
}
