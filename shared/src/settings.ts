import { readFileSync } from 'node:fs';
import { messageOf } from './errors.ts';
import { isSecret } from './redaction.ts';

/** Reads settings from text and remembers every problem, so that all of them are reported at once. */
export class SettingsReader {
  readonly problems: string[] = [];
  readonly #values: Readonly<Record<string, string | undefined>>;

  /** @param values names to text, usually the environment overlaid by flags. */
  constructor(values: Readonly<Record<string, string | undefined>>) {
    this.#values = values;
  }

  text(name: string, fallback: string): string;
  text(name: string): string | undefined;
  text(name: string, fallback?: string): string | undefined {
    const value = this.#values[name];
    return value === undefined || value === '' ? fallback : value;
  }

  /** A whole number within [min, max]. */
  integer(name: string, fallback: number, range: { min: number; max: number }): number {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const value = Number(text);
    if (Number.isInteger(value) && value >= range.min && value <= range.max) return value;
    this.problems.push(`${name} must be a whole number from ${range.min} to ${range.max}, not "${text}"`);
    return fallback;
  }

  /** `1`, `true`, `yes` or `0`, `false`, `no`. */
  flag(name: string, fallback: boolean): boolean {
    const text = this.text(name)?.toLowerCase();
    if (text === undefined) return fallback;
    if (['1', 'true', 'yes', 'on'].includes(text)) return true;
    if (['0', 'false', 'no', 'off'].includes(text)) return false;
    this.problems.push(`${name} must be true or false, not "${text}"`);
    return fallback;
  }

  /** Texts separated by commas, without what is empty. */
  list(name: string, fallback = ''): string[] {
    const parts = this.text(name, fallback).split(',');
    return parts.map((part) => part.trim()).filter((part) => part !== '');
  }

  /** The text of a file whose name is set, for what should stand neither in arguments nor in variables. */
  secretFile(name: string): string | undefined {
    const path = this.text(name);
    if (path === undefined) return undefined;
    try {
      const secret = readFileSync(path, 'utf8').trim();
      if (secret !== '') return secret;
      this.problems.push(`${name}: ${path} is empty`);
    } catch (error) {
      const why = isSecret(path) ? 'it must name a file, and is a token itself' : messageOf(error);
      this.problems.push(`${name} cannot be read: ${why}`);
    }
    return undefined;
  }

  oneOf<T extends string>(name: string, fallback: T, allowed: readonly T[]): T {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const found = allowed.find((value) => value === text);
    if (found !== undefined) return found;
    this.problems.push(`${name} must be one of ${allowed.join(', ')}, not "${text}"`);
    return fallback;
  }

  /** `host:port`, `[v6]:port` or `:port` (loopback); port 0 lets the system choose. */
  address(name: string, fallback: HostPort): HostPort {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const parsed = parseHostPort(text);
    if (parsed !== undefined) return parsed;
    this.problems.push(`${name} must be HOST:PORT, not "${text}"`);
    return fallback;
  }

  /** `key=value,key=value`. */
  labels(name: string): Record<string, string> {
    const labels: Record<string, string> = {};
    for (const pair of this.list(name)) {
      const match = LABEL.exec(pair);
      if (match?.groups === undefined) this.problems.push(`${name} must be KEY=VALUE,KEY=VALUE, not "${pair}"`);
      else labels[match.groups.key ?? ''] = match.groups.value ?? '';
    }
    return labels;
  }
}

export interface HostPort {
  host: string;
  port: number;
}

const LABEL =
  /^(?<key>[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?)=(?<value>([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?)$/;

export function parseHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[(?<v6>[0-9a-fA-F:.]+)\]|(?<host>[^:\s]*)):(?<port>\d{1,5})$/.exec(text);
  const port = Number(match?.groups?.port);
  if (match?.groups === undefined || port > 65_535) return undefined;
  return { host: match.groups.v6 ?? (match.groups.host || '127.0.0.1'), port };
}

export function formatHostPort(address: HostPort): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}
