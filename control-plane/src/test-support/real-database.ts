import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@harrier/shared';
import { afterAll } from 'vitest';
import { type Database, openDatabase } from '../db/database.ts';

export const silent = createLogger({ name: 'test', level: 'silent' });

/** A real PostgreSQL with the schema, for the tests of one file. */
export async function startDatabase(): Promise<Database> {
  const dataDirectory = mkdtempSync(join(tmpdir(), 'harrier-db-'));
  chmodSync(dataDirectory, 0o755);
  const onLost = (reason: string) => {
    throw new Error(reason);
  };
  const database = await openDatabase({ url: undefined, dataDirectory, logger: silent, onLost });
  afterAll(async () => {
    await database.close();
    rmSync(dataDirectory, { recursive: true, force: true });
  });
  return database;
}
