import { type DescField, type DescMessage, fromJson, type JsonObject, type JsonValue } from '@bufbuild/protobuf';
import { messageOf } from '@harrier/shared';

export interface Undecodable {
  /** Path in the schema's spelling, for example `retry_policy.codes[1]`. */
  path: string;
  problem: string;
}

/**
 * Why a JSON object cannot be decoded, and where; undefined when each field alone can be and no two of one
 * oneof are given. Used only after decoding has failed, as protobuf-es names the field in some of its messages and only
 * the type in others.
 */
export function findUndecodable(schema: DescMessage, json: JsonObject, prefix = ''): Undecodable | undefined {
  for (const [key, value] of Object.entries(json)) {
    const field = schema.fields.find(({ name, jsonName }) => name === key || jsonName === key);
    if (field === undefined) return { path: prefix + key, problem: 'unknown field' };
    const found = inField(field, value, prefix + field.name) ?? attempt(schema, field, value, prefix + field.name);
    if (found !== undefined) return found;
  }
  return inOneofs(schema, json, prefix);
}

function inOneofs(schema: DescMessage, json: JsonObject, prefix: string): Undecodable | undefined {
  for (const { name, fields } of schema.oneofs) {
    const given = fields.filter((field) => [field.name, field.jsonName].some((key) => Object.hasOwn(json, key)));
    if (given.length < 2) continue;
    return { path: prefix + name, problem: `give only one of ${given.map((field) => field.name).join(' and ')}` };
  }
  return undefined;
}

function inField(field: DescField, value: JsonValue, path: string): Undecodable | undefined {
  if (field.fieldKind === 'list' && Array.isArray(value)) {
    return firstOf(value.entries(), ([i, item]) => inItem(field, [item], item, `${path}[${i}]`));
  }
  if (field.fieldKind === 'map' && isObject(value)) {
    return firstOf(Object.entries(value), ([key, item]) => inItem(field, { [key]: item }, item, `${path}["${key}"]`));
  }
  return field.fieldKind === 'message' ? inMessage(field.message, value, path) : undefined;
}

/** @param alone The list or map with only this item. */
function inItem(field: DescField, alone: JsonValue, item: JsonValue, path: string): Undecodable | undefined {
  const nested = field.message && inMessage(field.message, item, path);
  return nested ?? attempt(field.parent, field, alone, path);
}

function inMessage(schema: DescMessage, value: JsonValue, path: string): Undecodable | undefined {
  // The well-known types have JSON forms of their own.
  if (schema.typeName.startsWith('google.protobuf.') || !isObject(value)) return undefined;
  return findUndecodable(schema, value, `${path}.`);
}

function attempt(schema: DescMessage, field: DescField, value: JsonValue, path: string): Undecodable | undefined {
  try {
    fromJson(schema, { [field.jsonName]: value });
    return undefined;
  } catch (error) {
    return { path, problem: problemOf(error) };
  }
}

/** `cannot decode field harrier.v1.X.y from JSON: expected …` without what the path says already. */
function problemOf(error: unknown): string {
  const message = messageOf(error);
  const [, kind, name, rest] = /^cannot decode (field|message|enum) (\S+) from JSON: (.*)$/s.exec(message) ?? [];
  if (kind === undefined || rest === undefined) return message;
  return kind === 'field' ? rest.replace(/^(map entry ".*?"|list item\[\d+\]): /s, '') : `not a ${name}: ${rest}`;
}

function firstOf<T>(items: Iterable<T>, find: (item: T) => Undecodable | undefined): Undecodable | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
