import { type DescField, type DescMessage, getOption, hasOption, type Message } from '@bufbuild/protobuf';
import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';
import { field as fieldRules } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { fieldValue } from './field-value.ts';

export interface QuickFault {
  /** As in the schema, for example `code.environment.venv.requirements`. */
  path: string;
  problem: string;
}

interface Plan {
  bounded: readonly { field: DescField; max: number }[];
  times: readonly DescField[];
  /** Fields with messages of our own. */
  inner: readonly (DescField & { message: DescMessage })[];
}

const plans = new WeakMap<DescMessage, Plan>();

/**
 * The first fault of a message that is to be found before its rules are evaluated: a list or a map that has too many items,
 * since the evaluation looks at every item, at microseconds each, also of a list that is too long; and a time or a duration
 * that is none, which the rules take for one.
 */
export function findQuickFault(schema: DescMessage, message: Message, prefix = ''): QuickFault | undefined {
  const { bounded, times, inner } = planOf(schema);
  for (const { field, max } of bounded) {
    const value = fieldValue(message, field) ?? {};
    const count = Array.isArray(value) ? value.length : Object.keys(value).length;
    if (count > max) return { path: prefix + field.name, problem: `must have at most ${max} items, not ${count}` };
  }
  for (const field of times) {
    const value = fieldValue(message, field);
    const problem = value === undefined ? undefined : timeProblem(value as Duration | Timestamp);
    if (problem !== undefined) return { path: prefix + field.name, problem };
  }
  for (const field of inner) {
    const value = fieldValue(message, field);
    if (value === undefined) continue;
    const path = prefix + field.name;
    const items = field.fieldKind === 'message' ? [[path, value] as const] : itemsOf(value, path);
    for (const [itemPath, item] of items) {
      const found = findQuickFault(field.message, item as Message, `${itemPath}.`);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

/** From 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, as `google/protobuf/timestamp.proto` says. */
const FIRST_SECOND = -62_135_596_800n;
const LAST_SECOND = 253_402_300_799n;
/** 10,000 years, as `google/protobuf/duration.proto` says. */
const MAX_SECONDS = 315_576_000_000n;
const MAX_NANOS = 999_999_999;

function timeProblem(time: Duration | Timestamp): string | undefined {
  const { seconds, nanos } = time;
  const given = `seconds ${seconds} and nanos ${nanos}`;
  if (time.$typeName === 'google.protobuf.Timestamp') {
    if (seconds < FIRST_SECOND || seconds > LAST_SECOND) {
      return `not a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z: ${given}`;
    }
    return nanos < 0 || nanos > MAX_NANOS ? `nanos must be from 0 to ${MAX_NANOS}: ${given}` : undefined;
  }
  if (seconds < -MAX_SECONDS || seconds > MAX_SECONDS) return `longer than 10,000 years: ${given}`;
  if (Math.abs(nanos) > MAX_NANOS) return `nanos must be from -${MAX_NANOS} to ${MAX_NANOS}: ${given}`;
  const signsDiffer = (seconds > 0n && nanos < 0) || (seconds < 0n && nanos > 0);
  return signsDiffer ? `seconds and nanos must have the same sign: ${given}` : undefined;
}

function itemsOf(value: unknown, path: string): (readonly [string, unknown])[] {
  return Array.isArray(value)
    ? value.map((item, i) => [`${path}[${i}]`, item] as const)
    : Object.entries(value as object).map(([key, item]) => [`${path}["${key}"]`, item] as const);
}

function planOf(schema: DescMessage): Plan {
  const known = plans.get(schema);
  if (known !== undefined) return known;
  const plan: Plan = {
    bounded: schema.fields.flatMap((field) => {
      const max = maxOf(field);
      return max === undefined ? [] : [{ field, max }];
    }),
    times: schema.fields.filter((field) => field.fieldKind === 'message' && TIMES.has(field.message.typeName)),
    inner: schema.fields.filter(
      (field): field is DescField & { message: DescMessage } =>
        field.message !== undefined && !field.message.typeName.startsWith('google.protobuf.'),
    ),
  };
  plans.set(schema, plan);
  return plan;
}

const TIMES: ReadonlySet<string> = new Set(['google.protobuf.Timestamp', 'google.protobuf.Duration']);

function maxOf(field: DescField): number | undefined {
  if (!hasOption(field, fieldRules)) return undefined;
  const { type } = getOption(field, fieldRules);
  const max = type.case === 'repeated' ? type.value.maxItems : type.case === 'map' ? type.value.maxPairs : 0n;
  return max > 0n ? Number(max) : undefined;
}
