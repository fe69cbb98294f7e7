import { createPublicKey, verify } from 'node:crypto';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { AgentIdentity } from './agent-identity.ts';

describe('the identity of an agent', () => {
  test('is made once, readable by the owner only, and is the same after a restart', () => {
    const directory = tempDir();
    const first = AgentIdentity.open(directory);
    expect(first.agentId).toBe('');
    expect(first.publicKey).toHaveLength(32);
    expect(statSync(first.path).mode & 0o777).toBe(0o600);
    first.keepAgentId('agent-7');
    const second = AgentIdentity.open(directory);
    expect(second.agentId).toBe('agent-7');
    expect(Buffer.from(second.publicKey).equals(first.publicKey)).toBe(true);
  });

  test('signs with Ed25519', () => {
    const identity = AgentIdentity.open(tempDir());
    const data = Buffer.from('challenge');
    const x = Buffer.from(identity.publicKey).toString('base64url');
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
    expect(verify(null, data, key, identity.sign(data))).toBe(true);
    expect(verify(null, Buffer.from('another'), key, identity.sign(data))).toBe(false);
  });

  test.each([
    ['half a file', (text: string) => text.slice(0, text.length / 2)],
    ['another version', (text: string) => text.replace('"version": 1', '"version": 9')],
    ['a damaged key', (text: string) => text.replace('PRIVATE KEY-----\\n', 'PRIVATE KEY-----\\nAAAA')],
    ['something else', () => '[]'],
  ])('is refused when the file holds %s', (_, damage) => {
    const directory = tempDir();
    const { path } = AgentIdentity.open(directory);
    writeFileSync(path, damage(readFileSync(path, 'utf8')));
    expect(() => AgentIdentity.open(directory)).toThrow(`the agent's identity ${path} is damaged`);
  });

  test('is not quoted when the file is damaged', () => {
    const directory = tempDir();
    const { path } = AgentIdentity.open(directory);
    writeFileSync(path, readFileSync(path, 'utf8').replace('"-----BEGIN PRIVATE KEY-----\\n', ''));
    expect(() => AgentIdentity.open(directory)).toThrow(`${path} is damaged: it is not JSON; restore it`);
  });

  test('is refused when others can read it', () => {
    const directory = tempDir();
    const { path } = AgentIdentity.open(directory);
    chmodSync(path, 0o644);
    expect(() => AgentIdentity.open(directory)).toThrow(`chmod 600 ${path}`);
  });
});
