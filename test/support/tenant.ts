import { randomUUID } from 'node:crypto';
import { createSecret, hashSecret } from '../../control-plane/src/auth/secret.ts';
import { insertJoinToken } from '../../control-plane/src/db/queries/agents.ts';
import type { Sql } from '../../control-plane/src/db/sql.ts';

/** A tenant beside the first one, with an administrator; nothing serves tenants yet. */
export class Tenant {
  readonly id = randomUUID();
  apiKey = createSecret('hk');
  readonly #sql: Sql;

  private constructor(sql: Sql) {
    this.#sql = sql;
  }

  static async create(sql: Sql, name: string): Promise<Tenant> {
    const tenant = new Tenant(sql);
    await sql`INSERT INTO tenants (id, name) VALUES (${tenant.id}, ${name})`;
    await tenant.#insertKey();
    return tenant;
  }

  /** The key works no more, as far as no replica remembers it. @returns another one */
  async replaceKey(): Promise<string> {
    const old = hashSecret(this.apiKey);
    this.apiKey = createSecret('hk');
    await this.#insertKey();
    await this.#sql`DELETE FROM api_keys WHERE secret_hash = ${old}`;
    return this.apiKey;
  }

  async #insertKey(): Promise<void> {
    await this.#sql`INSERT INTO api_keys (id, tenant_id, name, role, secret_hash)
      SELECT ${randomUUID()}, ${this.id}, 'test', role, ${hashSecret(this.apiKey)} FROM api_keys LIMIT 1`;
  }

  async joinToken(): Promise<string> {
    const token = createSecret('hj');
    const secretHash = hashSecret(token);
    await insertJoinToken(this.#sql, { id: randomUUID(), tenantId: this.id, secretHash, ttlMs: 60_000 });
    return token;
  }
}
