import { fileURLToPath } from 'node:url';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Bind } from '../../launcher/messages.ts';
import { TOOLS_PATH } from '../build-runner.ts';
import { EnvironmentError } from '../environment.ts';
import { isWithin, plainUrl, shownUrl } from '../url-scope.ts';

const ALIAS = 'https://conda.anaconda.org';
export const SCHEMES = ['http:', 'https:', 'file:'];

/** The conda channels that an agent lets builds use. */
export interface ChannelPolicy {
  /** Where a request names none. */
  channels: readonly string[];
  /** Further ones that a request may name, each the whole name or URL, or the URL's beginning. `*`: any that is not a directory. */
  allowed: readonly string[];
}

export interface ChosenChannels {
  urls: string[];
  /** What a build may reach: `HOST:PORT`. */
  hosts: string[];
  /** Channels that are directories of the host. */
  binds: Bind[];
  /** Beginnings of the URLs of those, outside and in the build's sandbox. */
  directories: { outside: string; inside: string }[];
}

/** URLs as the build's sandbox has them. */
export function toInside({ directories }: ChosenChannels, text: string): string {
  return directories.reduce((done, { outside, inside }) => done.replaceAll(outside, inside), text);
}

/** URLs as a lock has them. */
export function toOutside({ directories }: ChosenChannels, text: string): string {
  return directories.reduce((done, { outside, inside }) => done.replaceAll(inside, outside), text);
}

/** @throws EnvironmentError POLICY_DENIED, naming the setting */
export function chooseChannels(policy: ChannelPolicy, asked: readonly string[]): ChosenChannels {
  const own = new Set(policy.channels.map(urlOf));
  const chosen: ChosenChannels = { urls: [], hosts: [], binds: [], directories: [] };
  for (const channel of asked.length === 0 ? policy.channels : asked) {
    const url = urlOf(channel);
    const isDirectory = url.startsWith('file:');
    const open = policy.allowed.some((one) => (one === '*' ? !isDirectory : isWithin(url, urlOf(one))));
    if (!own.has(url) && !open) {
      throw denied(`the conda channel ${shownUrl(channel)} is not in HARRIER_AGENT_ALLOWED_CHANNELS`);
    }
    chosen.urls.push(url);
    if (isDirectory) {
      const target = `${TOOLS_PATH}/channels/${chosen.binds.length}`;
      chosen.binds.push({ source: fileURLToPath(url), target, writable: false });
      chosen.directories.push({ outside: `${url}/`, inside: `file://${target}/` });
    } else {
      const { hostname, port, protocol } = new URL(url);
      chosen.hosts.push(`${hostname}:${port || (protocol === 'http:' ? 80 : 443)}`);
    }
  }
  return { ...chosen, hosts: [...new Set(chosen.hosts)] };
}

/** A name is a channel of the public server. @throws EnvironmentError for what is neither name nor plain URL */
function urlOf(channel: string): string {
  const text = /^[\w-]+:/.test(channel) ? channel : `${ALIAS}/${channel}`;
  const url = plainUrl(text, SCHEMES);
  // The public server has many channels: a name is one of them, never a way to another.
  if (url !== undefined && (text === channel || isWithin(url, ALIAS))) return url;
  throw denied(`"${shownUrl(channel)}" is neither the name nor the plain URL of a conda channel`);
}

function denied(message: string): EnvironmentError {
  return new EnvironmentError(Code.POLICY_DENIED, message);
}
