import { http } from './http.ts';

export interface MetricFamily {
  name: string;
  type: string;
  help: string;
}

/** The families of a page in the text format, by name. */
export async function metricFamilies(url: string): Promise<Map<string, MetricFamily>> {
  const { text } = await http(url);
  const families = new Map<string, MetricFamily>();
  for (const [, name = '', help = ''] of text.matchAll(/^# HELP (\S+) (.*)$/gm)) {
    families.set(name, { name, help, type: '' });
  }
  for (const [, name = '', type = ''] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
    const family = families.get(name);
    if (family !== undefined) family.type = type;
  }
  return families;
}

/** What stands where a name of a series could, and is none. */
const WORDS = new Set(['and', 'or', 'unless', 'bool', 'offset', 'by', 'without', 'on', 'ignoring', 'inf', 'nan']);

/** Names of series that an expression of PromQL reads, but for Prometheus's own `up`. */
export function seriesIn(expression: string): string[] {
  const bare = expression
    .replaceAll(/"(?:[^"\\]|\\.)*"/g, '')
    .replaceAll(/\{[^}]*\}|\[[^\]]*\]/g, '')
    .replaceAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, '');
  const names = bare.match(/\b[a-zA-Z_:][\w:]*\b(?!\s*\()/g) ?? [];
  return [...new Set(names)].filter((name) => name !== 'up' && !WORDS.has(name.toLowerCase()));
}

/** Whether one of the families has such a series: histograms have three kinds of them. */
export function isExported(series: string, families: ReadonlyMap<string, MetricFamily>): boolean {
  if (families.has(series) && families.get(series)?.type !== 'histogram') return true;
  return (
    families.get(series.replace(/_(bucket|sum|count)$/, ''))?.type === 'histogram' &&
    /_(bucket|sum|count)$/.test(series)
  );
}
