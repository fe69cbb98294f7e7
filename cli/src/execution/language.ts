import { extname } from 'node:path';

/** What source text may be written in. */
export const LANGUAGES = ['python', 'nodejs', 'go'] as const;
type Language = (typeof LANGUAGES)[number];

const BY_ENDING: Readonly<Record<string, Language>> = {
  '.py': 'python',
  '.js': 'nodejs',
  '.mjs': 'nodejs',
  '.cjs': 'nodejs',
  '.go': 'go',
};

/** @returns empty: the ending does not say, and the default stands */
export function languageOfFile(path: string): Language | '' {
  return BY_ENDING[extname(path).toLowerCase()] ?? '';
}
