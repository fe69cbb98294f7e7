import type { DescField, Message } from '@bufbuild/protobuf';

/** What a message has in a field; undefined for one that is not set, and for the field of a choice that is not chosen. */
export function fieldValue(message: Message, field: DescField): unknown {
  const fields = message as unknown as Record<string, unknown>;
  if (field.oneof === undefined) return fields[field.localName];
  const chosen = fields[field.oneof.localName] as { case?: string; value?: unknown };
  return chosen.case === field.localName ? chosen.value : undefined;
}
