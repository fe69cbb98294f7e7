import type { DescField, Message } from '@bufbuild/protobuf';
import type { Path } from '@bufbuild/protobuf/reflect';
import type { Duration } from '@bufbuild/protobuf/wkt';
import { fieldValue } from './field-value.ts';

const MAX_CHARS = 100;

/**
 * The value at a place of a message as a refusal shows it, at most 100 characters of a text; undefined where there is none
 * to show: for lists, maps, messages, bytes, and what the schema marks with `debug_redact`, which may be secret.
 */
export function sentValue(message: Message, path: Path): string | undefined {
  let value: unknown = message;
  let field: DescField | undefined;
  for (const step of path) {
    if (value === undefined || value === null) return undefined;
    if (step.kind === 'field') {
      if (step.proto.options?.debugRedact === true) return undefined;
      field = step;
      value = fieldValue(value as Message, step);
    } else if (step.kind === 'list_sub') value = (value as unknown[])[step.index];
    else if (step.kind === 'map_sub') value = (value as Record<string, unknown>)[String(step.key)];
    else return undefined;
  }
  return field === undefined ? undefined : shown(value, field);
}

function shown(value: unknown, field: DescField): string | undefined {
  switch (typeof value) {
    case 'string': {
      const start = value.length > MAX_CHARS ? `${value.slice(0, MAX_CHARS)}…` : value;
      return JSON.stringify(start);
    }
    case 'number':
    case 'bigint':
    case 'boolean':
      return String(value);
    default:
      return field.message?.typeName === 'google.protobuf.Duration' && field.fieldKind === 'message'
        ? durationText(value as Duration | undefined)
        : undefined;
  }
}

function durationText(duration: Duration | undefined): string | undefined {
  if (duration === undefined) return undefined;
  const { seconds, nanos } = duration;
  const sign = seconds < 0n || nanos < 0 ? '-' : '';
  const fraction = nanos === 0 ? '' : `.${String(Math.abs(nanos)).padStart(9, '0').replace(/0+$/, '')}`;
  return `${sign}${seconds < 0n ? -seconds : seconds}${fraction}s`;
}
