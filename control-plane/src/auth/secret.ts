import { hash, randomBytes } from 'node:crypto';

/** `hk_` for API keys, `hj_` for join tokens; 32 random bytes follow, in base64url. */
export type SecretPrefix = 'hk' | 'hj';

export function createSecret(prefix: SecretPrefix): string {
  return `${prefix}_${randomBytes(32).toString('base64url')}`;
}

/** What is stored of a secret. A plain hash does: 256 random bits cannot be guessed. */
export function hashSecret(secret: string): Buffer {
  return Buffer.from(digestOfSecret(secret), 'base64');
}

/** The same as base64, without an object that the collector has to look after: for what every call does. */
export function digestOfSecret(secret: string): string {
  return hash('sha256', secret, 'base64');
}
