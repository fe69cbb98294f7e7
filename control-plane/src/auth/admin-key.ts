import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { HarrierError } from '@harrier/shared';
import { Access_Role } from '@harrier/shared/gen/options';
import { insertApiKey } from '../db/queries/api-keys.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { createSecret, hashSecret } from './secret.ts';

/**
 * Makes sure that the file holds an admin key of the tenant which the database knows: the way in for whoever owns the data
 * directory. The file is written once, readable by its owner alone.
 */
export async function ensureAdminKey(sql: Sql, path: string, tenantId: string): Promise<void> {
  if (!existsSync(path)) await writeFile(path, `${createSecret('hk')}\n`, { mode: 0o600, flag: 'wx' });
  const key = (await readFile(path, 'utf8')).trim();
  if (!/^hk_[A-Za-z0-9_-]{43}$/.test(key)) {
    throw new HarrierError('failed_precondition', `${path} does not hold an API key; remove it to get a new one`);
  }
  const secretHash = hashSecret(key);
  await insertApiKey(sql, { id: uuidv7(), tenantId, name: 'local admin', role: Access_Role.ADMIN, secretHash });
}
