import { type DescField, type DescMessage, type JsonObject, type JsonValue, ScalarType } from '@bufbuild/protobuf';
import { isWrapperDesc } from '@bufbuild/protobuf/wkt';
import { fieldError } from '../field-error.ts';

/** Messages whose JSON form is a string. */
const STRING_MESSAGES = new Set(['google.protobuf.Timestamp', 'google.protobuf.Duration', 'google.protobuf.FieldMask']);

/**
 * Turns query parameters into the JSON form of the request, to be decoded like a body. A parameter is a field's name in
 * either spelling, `a.b` for a nested one, repeated for a list, `labels[key]` for a map. Throws `invalid_argument` that
 * names the parameter when there is no such field or it cannot be given in a query.
 *
 * @param bound Top-level fields, by their schema name, that the path or the body gives.
 */
export function queryToJson(schema: DescMessage, query: string, bound: ReadonlySet<string>): JsonObject {
  const json: JsonObject = {};
  for (const [parameter, value] of new URLSearchParams(query)) {
    const [, path = parameter, mapKey] = /^([^[\]]+)\[([^[\]]*)\]$/.exec(parameter) ?? [];
    const names = path.split('.');
    if (bound.has(findField(schema, names[0] ?? '')?.name ?? '')) {
      throw fieldError(parameter, `given by the path or the body, not by the query`);
    }
    setField(json, schema, names, { parameter, value, mapKey });
  }
  return json;
}

interface Given {
  parameter: string;
  value: string;
  mapKey: string | undefined;
}

function setField(target: JsonObject, schema: DescMessage, names: string[], given: Given): void {
  const [name = '', ...rest] = names;
  const field = findField(schema, name);
  if (field === undefined) throw fieldError(given.parameter, `unknown query parameter`);
  if (rest.length > 0) {
    if (field.fieldKind !== 'message' || isLeaf(field)) throw fieldError(given.parameter, `unknown query parameter`);
    const nested = ensure(target, field, {});
    setField(nested, field.message, rest, given);
  } else if (field.fieldKind === 'map' && given.mapKey !== undefined) {
    const entries = ensure(target, field, Object.create(null) as JsonObject);
    entries[given.mapKey] = toJson(field, given);
  } else if (given.mapKey !== undefined || !isLeaf(field)) {
    throw fieldError(given.parameter, `cannot be given in the query`);
  } else if (field.fieldKind === 'list') {
    const items = ensure<JsonValue[]>(target, field, []);
    items.push(toJson(field, given));
  } else {
    if (target[field.jsonName] !== undefined) throw fieldError(given.parameter, `given more than once`);
    target[field.jsonName] = toJson(field, given);
  }
}

/** What the field already has, or else `initial`. */
function ensure<T extends JsonValue>(target: JsonObject, field: DescField, initial: T): T {
  target[field.jsonName] ??= initial;
  return target[field.jsonName] as T;
}

function findField(schema: DescMessage, name: string): DescField | undefined {
  return schema.fields.find((field) => field.name === name || field.jsonName === name);
}

/** Can a field be written as one query value. */
function isLeaf(field: DescField): boolean {
  if (field.fieldKind === 'map') return false;
  if (field.message === undefined) return true;
  return STRING_MESSAGES.has(field.message.typeName) || isWrapperDesc(field.message);
}

/** Protobuf's JSON takes numbers as strings too; only booleans and numeric enums have no string form. */
function toJson(field: DescField, { parameter, value }: Given): JsonValue {
  if (field.enum !== undefined) return /^-?\d+$/.test(value) ? Number(value) : value;
  const wrapped = field.message?.fields[0]?.scalar;
  if (
    (field.scalar ?? (STRING_MESSAGES.has(field.message?.typeName ?? '') ? undefined : wrapped)) !== ScalarType.BOOL
  ) {
    return value;
  }
  if (value === 'true') return true;
  if (value === 'false') return false;
  throw fieldError(parameter, `expected true or false, got ${JSON.stringify(value)}`);
}
