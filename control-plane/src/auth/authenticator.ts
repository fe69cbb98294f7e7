import { HarrierError } from '@harrier/shared';
import type { Access_Role } from '@harrier/shared/gen/options';
import { findApiKey } from '../db/queries/api-keys.ts';
import type { Sql } from '../db/sql.ts';
import { digestOfSecret } from './secret.ts';

/** Who calls: what a valid credential stands for. */
export interface Caller {
  tenantId: string;
  tenantName: string;
  role: Access_Role;
  keyId: string;
}

/** A revoked key works this much longer on replicas that have just seen it. */
const CACHE_MS = 5_000;
const CACHE_ENTRIES = 10_000;
const BEARER = /^Bearer +([A-Za-z0-9._~+/=-]+)$/i;

/** Tells callers by their API key. Keys that were found are remembered for a few seconds, by hash. */
export class Authenticator {
  readonly #sql: Sql;
  readonly #cache = new Map<string, { caller: Caller; untilMs: number }>();

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /** @param header value of `Authorization`. @throws HarrierError unauthenticated */
  async authenticate(header: string | null): Promise<Caller> {
    if (header === null) {
      throw new HarrierError('unauthenticated', 'no credential: send "Authorization: Bearer <API key>"');
    }
    const key = BEARER.exec(header)?.[1];
    if (key === undefined) {
      throw new HarrierError('unauthenticated', 'the Authorization header is not "Bearer <API key>"');
    }
    const digest = digestOfSecret(key);
    const cached = this.#cache.get(digest);
    if (cached !== undefined && cached.untilMs > performance.now()) return cached.caller;
    this.#cache.delete(digest);
    const row = await findApiKey(this.#sql, Buffer.from(digest, 'base64'));
    if (row === undefined) throw new HarrierError('unauthenticated', 'the API key is not valid or has expired');
    const caller = {
      tenantId: row.tenant_id,
      tenantName: row.tenant_name,
      role: row.role as Access_Role,
      keyId: row.id,
    };
    if (this.#cache.size >= CACHE_ENTRIES) this.#cache.clear();
    this.#cache.set(digest, { caller, untilMs: performance.now() + CACHE_MS });
    return caller;
  }
}
