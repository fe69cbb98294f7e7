import { HarrierError } from './errors.ts';

/** One condition of a selector; all of them must hold. */
export type LabelRequirement =
  | { key: string; operator: 'in' | 'not-in'; values: readonly string[] }
  | { key: string; operator: 'exists' | 'not-exists' }
  | { key: string; operator: 'greater' | 'less'; value: number };

export type LabelSelector = readonly LabelRequirement[];

const KEY = '[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?';
const VALUE = '(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?';
const SET = new RegExp(`^(?<key>${KEY})\\s+(?<operator>in|notin)\\s*\\((?<values>[^()]*)\\)$`);
const EQUALITY = new RegExp(`^(?<key>${KEY})\\s*(?<operator>==|=|!=)\\s*(?<value>${VALUE})$`);
const ORDER = new RegExp(`^(?<key>${KEY})\\s*(?<operator>[<>])\\s*(?<value>-?\\d+)$`);
const EXISTENCE = new RegExp(`^(?<not>!?)\\s*(?<key>${KEY})$`);
const WHOLE_VALUE = new RegExp(`^${VALUE}$`);

/**
 * Parses a label selector in Kubernetes' form: `zone=eu, gpu in (h100, h200), !spot, cores > 8`. Empty text selects all.
 * Source: Kubernetes, "Labels and Selectors" and `apimachinery/pkg/labels`.
 * @throws HarrierError invalid_argument, naming `field` and the part that does not parse.
 */
export function parseLabelSelector(text: string, field: string): LabelSelector {
  return splitRequirements(text).map((part) => parseRequirement(part, field));
}

/** Whether labels satisfy every requirement. As in Kubernetes `!=` and `notin` also match when the key is absent. */
export function matchesLabels(selector: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  return selector.every((requirement) => matchesRequirement(requirement, labels));
}

/** The requirement as text, for messages. */
export function formatRequirement(requirement: LabelRequirement): string {
  switch (requirement.operator) {
    case 'in':
    case 'not-in': {
      const { key, operator, values } = requirement;
      if (values.length === 1) return `${key}${operator === 'in' ? '=' : '!='}${values[0]}`;
      return `${key} ${operator === 'in' ? 'in' : 'notin'} (${values.join(', ')})`;
    }
    case 'exists':
      return requirement.key;
    case 'not-exists':
      return `!${requirement.key}`;
    case 'greater':
    case 'less':
      return `${requirement.key} ${requirement.operator === 'greater' ? '>' : '<'} ${requirement.value}`;
  }
}

export function matchesRequirement(requirement: LabelRequirement, labels: Readonly<Record<string, string>>): boolean {
  const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined;
  switch (requirement.operator) {
    case 'in':
      return value !== undefined && requirement.values.includes(value);
    case 'not-in':
      return value === undefined || !requirement.values.includes(value);
    case 'exists':
      return value !== undefined;
    case 'not-exists':
      return value === undefined;
    case 'greater':
      return value !== undefined && /^-?\d+$/.test(value) && Number(value) > requirement.value;
    case 'less':
      return value !== undefined && /^-?\d+$/.test(value) && Number(value) < requirement.value;
  }
}

/** Splits at the commas that are not within parentheses. */
function splitRequirements(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (character === '(') depth++;
    else if (character === ')') depth--;
    else if (character === ',' && depth === 0) {
      parts.push(text.slice(start, index));
      start = index + 1;
    }
  }
  parts.push(text.slice(start));
  return text.trim() === '' ? [] : parts.map((part) => part.trim());
}

function parseRequirement(part: string, field: string): LabelRequirement {
  const set = SET.exec(part)?.groups;
  if (set !== undefined) {
    const values = (set.values ?? '').split(',').map((value) => value.trim());
    const bad = values.find((value) => !WHOLE_VALUE.test(value));
    if (bad === undefined) {
      return { key: set.key ?? '', operator: set.operator === 'in' ? 'in' : 'not-in', values };
    }
  }
  const equality = EQUALITY.exec(part)?.groups;
  if (equality !== undefined) {
    const operator = equality.operator === '!=' ? 'not-in' : 'in';
    return { key: equality.key ?? '', operator, values: [equality.value ?? ''] };
  }
  const order = ORDER.exec(part)?.groups;
  if (order !== undefined) {
    const operator = order.operator === '>' ? 'greater' : 'less';
    return { key: order.key ?? '', operator, value: Number(order.value) };
  }
  const existence = EXISTENCE.exec(part)?.groups;
  if (existence !== undefined) {
    return { key: existence.key ?? '', operator: existence.not === '!' ? 'not-exists' : 'exists' };
  }
  throw new HarrierError(
    'invalid_argument',
    `${field}: "${part}" is not a label requirement; write KEY=VALUE, KEY!=VALUE, KEY in (A, B), KEY notin (A, B), KEY, !KEY, KEY > N or KEY < N`,
    { field },
  );
}
