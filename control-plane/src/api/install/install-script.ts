import type { Digests } from './bundles.ts';

export interface InstallFacts {
  version: string;
  serverUrl: string;
  sha256: Digests;
}

/** What a value may be made of: nothing that ends a word within single quotes. Their sources are stricter. */
const PLAIN = /^[A-Za-z0-9:/.,_~%+[\]-]*$/;

/**
 * The installer with the facts of this control plane written in.
 * @param template `deploy/agent/install.sh`, where each fact is an empty assignment at the beginning of a line
 * @throws Error when a value is not plain, or the template has no place for it
 */
export function renderInstallScript(template: string, { version, serverUrl, sha256 }: InstallFacts): string {
  const facts = {
    BAKED_VERSION: version,
    BAKED_SERVER_URL: serverUrl,
    BAKED_SHA256_X64: sha256.x64 ?? '',
    BAKED_SHA256_ARM64: sha256.arm64 ?? '',
  };
  return Object.entries(facts).reduce((text, [name, value]) => {
    if (!PLAIN.test(value)) throw new Error(`${name} cannot be written into a script: ${JSON.stringify(value)}`);
    const place = `\n${name}=''\n`;
    if (!text.includes(place)) throw new Error(`the installer has no place for ${name}`);
    return text.replace(place, () => `\n${name}='${value}'\n`);
  }, template);
}

/** A script that only says why there is none: somebody may give it to a shell whatever the status was. */
export function refusalScript(message: string): string {
  return `#!/bin/sh\necho '${message.replaceAll(/[^ -&(-~]/g, '?')}' >&2\nexit 1\n`;
}
