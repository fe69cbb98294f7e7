import { fileURLToPath } from 'node:url';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Bind } from '../../launcher/messages.ts';
import { TOOLS_PATH } from '../build-runner.ts';
import { EnvironmentError } from '../environment.ts';
import { isWithin, openUrl, plainUrl, shownUrl } from '../url-scope.ts';

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
  /** As they are asked: with user name, password and token. */
  urls: string[];
  /** What a build may reach: `HOST:PORT`. */
  hosts: string[];
  /** Channels that are directories of the host. */
  binds: Bind[];
  /**
   * Beginnings of URLs in a lock, and in the build's sandbox where they differ: there directories are elsewhere, and
   * credentials are in it. A lock is told to everybody.
   */
  names: { outside: string; inside: string }[];
}

/**
 * A URL as the build's sandbox has it; one that is so already stays. Only its beginning counts: a secret is for the server of
 * its own channel, whatever stands further on in a URL of another.
 */
export function toInside({ names }: ChosenChannels, url: string): string {
  if (names.some(({ inside }) => url.startsWith(inside))) return url;
  const name = names.find(({ outside }) => url.startsWith(outside));
  return name === undefined ? url : name.inside + url.slice(name.outside.length);
}

/** A URL of the build's sandbox as a lock has it. */
export function toOutside({ names }: ChosenChannels, url: string): string {
  const name = names.find(({ inside }) => url.startsWith(inside));
  return name === undefined ? url : name.outside + url.slice(name.inside.length);
}

/** @throws EnvironmentError POLICY_DENIED, naming the setting */
export function chooseChannels(policy: ChannelPolicy, asked: readonly string[]): ChosenChannels {
  const own = new Set(policy.channels.map(urlOf));
  const chosen: ChosenChannels = { urls: [], hosts: [], binds: [], names: [] };
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
      chosen.names.push({ outside: `${url}/`, inside: `file://${target}/` });
    } else {
      const { hostname, port, protocol } = new URL(url);
      chosen.hosts.push(`${hostname}:${port || (protocol === 'http:' ? 80 : 443)}`);
      const open = openUrl(url);
      if (open !== url) chosen.names.push({ outside: `${open}/`, inside: `${url}/` });
    }
  }
  return { ...chosen, hosts: [...new Set(chosen.hosts)] };
}

/** A channel with a password or a token. */
export function hasSecrets({ urls }: ChosenChannels): boolean {
  return urls.some((url) => openUrl(url) !== url);
}

/** Whether a package of a lock is of one of the channels. */
export function isOfChannels({ urls }: ChosenChannels, url: string): boolean {
  return urls.some((channel) => isWithin(url, channel) || isWithin(url, openUrl(channel)));
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
