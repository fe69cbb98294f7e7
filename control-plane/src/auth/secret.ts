import { createHash, randomBytes } from 'node:crypto';

/** `hk_` for API keys, `hj_` for join tokens; 32 random bytes follow, in base64url. */
export type SecretPrefix = 'hk' | 'hj';

export function createSecret(prefix: SecretPrefix): string {
  return `${prefix}_${randomBytes(32).toString('base64url')}`;
}

/** What is stored of a secret. A plain hash does: 256 random bits cannot be guessed. */
export function hashSecret(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
