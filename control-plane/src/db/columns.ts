import { customType, timestamp, uuid } from 'drizzle-orm/pg-core';

// Columns that the tables of several files have.

export const bytea = customType<{ data: Uint8Array }>({ dataType: () => 'bytea' });
export const time = (name: string) => timestamp(name, { withTimezone: true });
/** Without a foreign key: its check would lock the tenant's row on every insert of the hot path. */
export const hotTenantId = () => uuid('tenant_id').notNull();
