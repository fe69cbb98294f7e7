import { parseDurationMs } from '@harrier/shared';
import { InvalidArgumentError, Option } from 'commander';
import { parseInteger } from '../execution/request-options.ts';

/** Most that one page of the API holds. */
const MAX_PAGE_SIZE = 1000;

/** Reads pages until there are enough items or no more. */
export async function readPages<T>(
  limit: number,
  readPage: (page: { pageSize: number; pageToken: string }) => Promise<{ items: T[]; nextPageToken: string }>,
): Promise<T[]> {
  const items: T[] = [];
  let pageToken = '';
  do {
    const page = await readPage({ pageSize: Math.min(MAX_PAGE_SIZE, limit - items.length), pageToken });
    items.push(...page.items);
    pageToken = page.nextPageToken;
  } while (pageToken !== '' && items.length < limit);
  return items;
}

export function limitOption(defaultLimit: number): Option {
  return new Option('-n, --limit <number>', 'list so many at most').default(defaultLimit).argParser((text) => {
    const limit = parseInteger(text);
    if (limit < 1) throw new InvalidArgumentError('Write a number above 0.');
    return limit;
  });
}

/** `15m`, `2d`: that long ago. */
export function parseAge(text: string): Date {
  const ms = parseDurationMs(text);
  if (ms === undefined) throw new InvalidArgumentError('Write an age like 15m, 2h or 7d.');
  return new Date(Date.now() - ms);
}
