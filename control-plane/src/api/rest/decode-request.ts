import {
  create,
  type DescField,
  type DescMessage,
  fromJson,
  fromJsonString,
  getOption,
  type JsonObject,
  type JsonValue,
  type Message,
  mergeFromJson,
  ScalarType,
} from '@bufbuild/protobuf';
import { messageOf } from '@harrier/shared';
import { raw_json } from '@harrier/shared/gen/options';
import { decodeUtf8, parseJson, requireJsonObject } from './json-text.ts';
import { queryToJson } from './query-params.ts';
import { invalid } from './refusal.ts';
import type { RestRoute } from './route-table.ts';

export interface RequestParts {
  pathValues: ReadonlyMap<string, string>;
  /** Without `?`. */
  query: string;
  /** Empty when the route takes no body or none was sent; counts as `{}`. */
  body: Uint8Array;
}

export type RequestDecoder = (parts: RequestParts) => Message;

/**
 * Prepares the decoding of one route's requests. The message is made from the query, then the body, then the path, which
 * wins over a field of the same name in the body. Throws, when the server starts, if the annotation names no such field.
 */
export function createRequestDecoder(route: RestRoute): RequestDecoder {
  const schema = route.method.input;
  const pathFields = route.template.flatMap((segment) => (segment.kind === 'literal' ? [] : [segment.field]));
  const bodyField = route.body === '' || route.body === '*' ? undefined : requireField(schema, route.body);
  for (const field of pathFields) requireField(schema, field.split('.')[0] ?? '');
  const bound = new Set([
    ...pathFields.map((field) => field.split('.')[0] ?? ''),
    ...(bodyField ? [bodyField.name] : []),
  ]);
  // With `*` the body holds every field that the path does not.
  const readsQuery = route.body !== '*';

  return ({ pathValues, query, body }) => {
    if (!readsQuery && query !== '') rejectQuery(query);
    const message =
      route.body === '*'
        ? decodeWhole(schema, body)
        : query === ''
          ? create(schema)
          : decodeQuery(schema, query, bound);
    if (bodyField !== undefined) setBody(schema, message, bodyField, body);
    for (const [path, value] of pathValues) setPathValue(schema, message, path, value);
    return message;
  };
}

function decodeQuery(schema: DescMessage, query: string, bound: ReadonlySet<string>): Message {
  const json = queryToJson(schema, query, bound);
  return refuse(() => fromJson(schema, json));
}

function decodeWhole(schema: DescMessage, body: Uint8Array): Message {
  if (body.length === 0) return create(schema);
  const text = decodeUtf8(body);
  requireJsonObject(text);
  // From the text and not from the value, as only that refuses duplicate keys.
  return refuse(() => fromJsonString(schema, text));
}

function setBody(schema: DescMessage, message: Message, field: DescField, body: Uint8Array): void {
  const text = body.length === 0 ? '{}' : decodeUtf8(body);
  if (getOption(field, raw_json)) {
    requireJsonObject(text);
    setString(message, field, text);
  } else if (field.fieldKind === 'message') {
    parseJson(text);
    const value = refuse(() => fromJsonString(field.message, text));
    (message as Message & Record<string, unknown>)[field.localName] = value;
  } else {
    const json = { [field.jsonName]: parseJson(text) as JsonValue };
    refuse(() => mergeFromJson(schema, message, json));
  }
}

function setPathValue(schema: DescMessage, message: Message, path: string, value: string): void {
  const field = schema.fields.find(({ name }) => name === path);
  if (field?.scalar === ScalarType.STRING && field.fieldKind === 'scalar') {
    setString(message, field, value);
    return;
  }
  const json = path.split('.').reduceRight<JsonValue>((inner, name) => ({ [name]: inner }), value) as JsonObject;
  refuse(() => mergeFromJson(schema, message, json));
}

function setString(message: Message, field: DescField, value: string): void {
  const target = message as Message & Record<string, unknown>;
  if (field.oneof === undefined) target[field.localName] = value;
  else target[field.oneof.localName] = { case: field.localName, value };
}

function rejectQuery(query: string): never {
  const [parameter] = [...new URLSearchParams(query).keys()];
  throw invalid(`${parameter ?? query}: unknown query parameter; every field goes into the body`);
}

function requireField(schema: DescMessage, name: string): DescField {
  const field = schema.fields.find((candidate) => candidate.name === name);
  if (field === undefined) throw new Error(`google.api.http names no field of ${schema.typeName}: ${name}`);
  return field;
}

/** protobuf-es names the field in its message; what it throws is the caller's mistake. */
function refuse<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw invalid(messageOf(error));
  }
}
