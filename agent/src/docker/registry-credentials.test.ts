import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { registryCredentials } from './registry-credentials.ts';

const AUTH = Buffer.from('someone:pass:word').toString('base64');

function configFile(text: string): string {
  const path = join(tempDir(), 'config.json');
  writeFileSync(path, text);
  return path;
}

test.each([
  ['ghcr.io', { auths: { 'ghcr.io': { auth: AUTH } } }, { username: 'someone', password: 'pass:word' }],
  ['docker.io', { auths: { 'https://index.docker.io/v1/': { auth: AUTH } } }, { username: 'someone' }],
  ['r.example:5000', { auths: { 'https://r.example:5000/v2/': { username: 'a', password: 'b' } } }, { password: 'b' }],
  ['ghcr.io', { auths: { 'ghcr.io': { identitytoken: 't' } } }, { identitytoken: 't' }],
  ['ghcr.io', { auths: { 'evil-ghcr.io': { auth: AUTH } } }, undefined],
  ['ghcr.io', {}, undefined],
])('%s finds its entry', async (registry, config, expected) => {
  const found = await registryCredentials(configFile(JSON.stringify(config)), registry);
  if (expected === undefined) expect(found).toBeUndefined();
  else expect(found).toMatchObject(expected);
});

test('a file that is no configuration is an error that tells nothing of it', async () => {
  await expect(registryCredentials(configFile('{"auths": secret'), 'ghcr.io')).rejects.toThrow(/is not JSON/);
  await expect(registryCredentials(configFile('{"auths": secret'), 'ghcr.io')).rejects.not.toThrow(/secret/);
  await expect(registryCredentials('/nonexistent/config.json', 'ghcr.io')).rejects.toThrow(/cannot be read: ENOENT/);
});

test('credentials that only a helper program knows are an error, not an anonymous pull', async () => {
  const path = configFile(JSON.stringify({ credHelpers: { 'ghcr.io': 'desktop' } }));
  await expect(registryCredentials(path, 'ghcr.io')).rejects.toThrow(/helper program/);
});
