import { type DescMessage, fromJson, fromJsonString, type JsonObject, type Message } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { messageOf } from '@harrier/shared';
import { fieldError } from '../field-error.ts';
import { checkJsonSize } from '../message-size.ts';
import { findUndecodable } from './find-undecodable.ts';
import { MAX_JSON_DEPTH, nestsDeeperThan, parseJsonObject, tooDeep } from './json-text.ts';

/**
 * Decodes a message from JSON text. Throws `invalid_argument`: too many values, malformed JSON with its position, unknown fields, wrong
 * types and duplicate keys with the path of the field.
 *
 * @param prefix Path of the message in the request, ending in a dot.
 */
export function decodeMessage(schema: DescMessage, text: string, prefix = ''): Message {
  if (nestsDeeperThan(text, MAX_JSON_DEPTH)) throw tooDeep();
  checkJsonSize(text);
  try {
    // From the text, as only that refuses duplicate keys.
    return fromJsonString(schema, text);
  } catch (error) {
    throw explain(schema, parseJsonObject(text), error, prefix);
  }
}

/** The same for JSON that is parsed already. */
export function decodeMessageValue(schema: DescMessage, json: JsonObject): Message {
  try {
    return fromJson(schema, json);
  } catch (error) {
    throw explain(schema, json, error, '');
  }
}

function explain(schema: DescMessage, json: JsonObject, error: unknown, prefix: string): ConnectError {
  const found = findUndecodable(schema, json, prefix);
  if (found === undefined) return new ConnectError(messageOf(error), Code.InvalidArgument);
  return fieldError(found.path, found.problem);
}
