import { create, type DescField, type DescMessage, getOption, type Message, ScalarType } from '@bufbuild/protobuf';
import { raw_json } from '@harrier/shared/gen/options';
import { fieldError } from '../field-error.ts';
import { decodeMessage, decodeMessageValue } from '../json/decode-message.ts';
import { decodeUtf8, parseJsonObject } from '../json/json-text.ts';
import { queryToJson } from './query-params.ts';
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
 * wins over a field of the same name in the body. Throws, when the server starts, on an annotation that it cannot serve.
 */
export function createRequestDecoder(route: RestRoute): RequestDecoder {
  const schema = route.method.input;
  const pathFields = new Map(
    route.template.flatMap((segment) =>
      segment.kind === 'literal' ? [] : [[segment.field, requirePathField(schema, segment.field)]],
    ),
  );
  const bodyField = route.body === '' || route.body === '*' ? undefined : requireBodyField(schema, route.body);
  const bound = new Set([...pathFields.keys(), ...(bodyField === undefined ? [] : [bodyField.name])]);

  const decodeQueryAndBody = ({ query, body }: RequestParts): Message => {
    if (route.body === '*') {
      // The body holds every field that the path does not.
      if (query !== '') rejectQuery(query);
      return body.length === 0 ? create(schema) : decodeMessage(schema, decodeUtf8(body));
    }
    const message = query === '' ? create(schema) : decodeMessageValue(schema, queryToJson(schema, query, bound));
    if (bodyField !== undefined) setField(message, bodyField, decodeBodyField(bodyField, body));
    return message;
  };

  return (parts) => {
    const message = decodeQueryAndBody(parts);
    for (const [name, value] of parts.pathValues) {
      const field = pathFields.get(name);
      if (field !== undefined) setField(message, field, value);
    }
    return message;
  };
}

function decodeBodyField(field: DescField, body: Uint8Array): unknown {
  const text = body.length === 0 ? '{}' : decodeUtf8(body);
  if (field.message !== undefined) return decodeMessage(field.message, text, `${field.name}.`);
  // It stays the text that it is; parsing only proves that it is one.
  parseJsonObject(text);
  return text;
}

function setField(message: Message, field: DescField, value: unknown): void {
  const target = message as Message & Record<string, unknown>;
  if (field.oneof === undefined) target[field.localName] = value;
  else target[field.oneof.localName] = { case: field.localName, value };
}

function rejectQuery(query: string): never {
  const [parameter] = [...new URLSearchParams(query).keys()];
  throw fieldError(parameter ?? query, `unknown query parameter; every field goes into the body`);
}

function requirePathField(schema: DescMessage, name: string): DescField {
  const field = requireField(schema, name);
  if (field.fieldKind === 'scalar' && field.scalar === ScalarType.STRING) return field;
  throw new Error(`google.api.http: a path variable must be a string, ${schema.typeName}.${name} is not`);
}

function requireBodyField(schema: DescMessage, name: string): DescField {
  const field = requireField(schema, name);
  if (field.fieldKind === 'message' || getOption(field, raw_json)) return field;
  throw new Error(`google.api.http: a body must be a message or raw_json, ${schema.typeName}.${name} is neither`);
}

function requireField(schema: DescMessage, name: string): DescField {
  const field = schema.fields.find((candidate) => candidate.name === name);
  if (field === undefined) throw new Error(`google.api.http names no field of ${schema.typeName}: ${name}`);
  return field;
}
