/** One segment of a template: a literal, one variable segment, or the rest of the path. */
export type TemplateSegment =
  | { kind: 'literal'; text: string }
  | { kind: 'variable'; field: string }
  | { kind: 'rest'; field: string };

export type PathTemplate = readonly TemplateSegment[];

/**
 * Parses the path templates of google.api.http that this API uses: literals, `{field}`, `{field=*}` and, as the last
 * segment, `{field=**}`. Throws on the rest of that grammar (verbs, literals inside variables), so that a schema that uses
 * it fails when the server starts.
 */
export function parsePathTemplate(template: string): PathTemplate {
  if (!template.startsWith('/')) throw new Error(`path template must start with "/": ${template}`);
  const segments = template
    .slice(1)
    .split('/')
    .map((text) => parseSegment(text, template));
  const rest = segments.findIndex((segment) => segment.kind === 'rest');
  if (rest !== -1 && rest !== segments.length - 1) throw new Error(`** must be the last segment: ${template}`);
  return segments;
}

function parseSegment(text: string, template: string): TemplateSegment {
  const variable = /^\{([A-Za-z0-9_.]+)(?:=(\*\*|\*))?\}$/.exec(text);
  if (variable !== null) return { kind: variable[2] === '**' ? 'rest' : 'variable', field: variable[1] ?? '' };
  if (!/^[A-Za-z0-9._~-]+$/.test(text)) throw new Error(`unsupported segment "${text}" in path template ${template}`);
  return { kind: 'literal', text };
}

/**
 * Values of the variables by field, percent-decoded; undefined when the path does not match. Takes the path's segments
 * still encoded, so that `%2F` never splits one. A segment that is not valid percent-encoding does not match.
 */
export function matchPath(template: PathTemplate, segments: readonly string[]): Map<string, string> | undefined {
  const last = template.at(-1);
  const open = last?.kind === 'rest';
  if (open ? segments.length < template.length : segments.length !== template.length) return undefined;

  const values = new Map<string, string>();
  for (const [i, expected] of template.entries()) {
    if (expected.kind === 'literal') {
      if (segments[i] !== expected.text) return undefined;
      continue;
    }
    const value = decode(expected.kind === 'rest' ? segments.slice(i).join('/') : (segments[i] ?? ''));
    if (value === undefined || value === '') return undefined;
    values.set(expected.field, value);
  }
  return values;
}

/** Negative when `a` is to be tried before `b`: at the first difference a literal wins over a variable, that over the rest. */
export function compareSpecificity(a: PathTemplate, b: PathTemplate): number {
  const rank = { literal: 0, variable: 1, rest: 2 } as const;
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const left = a[i];
    const right = b[i];
    if (left === undefined || right === undefined) return a.length - b.length;
    if (left.kind !== right.kind) return rank[left.kind] - rank[right.kind];
  }
  return 0;
}

function decode(text: string): string | undefined {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
