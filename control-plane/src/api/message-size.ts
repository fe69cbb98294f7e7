import type { DescField, DescMessage } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { Code, ConnectError } from '@connectrpc/connect';
import { holdsMoreThan, MAX_JSON_VALUES } from '../service/json-size.ts';

/**
 * Most records of an encoded message, entries of maps and all that is within them included. What makes one value in JSON is
 * two to four records.
 */
const MAX_RECORDS = 2 * MAX_JSON_VALUES;
const MAX_DEPTH = 100;
const HINT = 'a large input goes into input_json, as text';

/** @throws ConnectError invalid_argument for a JSON text with more values than a message is made of */
export function checkJsonSize(text: string): void {
  if (!holdsMoreThan(MAX_JSON_VALUES, text, ',')) return;
  throw new ConnectError(`body: more than ${MAX_JSON_VALUES} values; ${HINT}`, Code.InvalidArgument);
}

/**
 * Reads the tags of an encoded message, and decodes nothing. What is malformed passes: decoding tells what is wrong.
 * @throws ConnectError invalid_argument for more records than a message is made of
 */
export function checkBinarySize(schema: DescMessage, bytes: Uint8Array): void {
  // A record takes two bytes at least.
  if (bytes.length <= MAX_RECORDS) return;
  let left: number;
  try {
    left = leftAfter(shapeOf(schema), new BinaryReader(bytes), bytes.length, MAX_RECORDS, 0);
  } catch {
    return;
  }
  if (left >= 0) return;
  throw new ConnectError(`body: more than ${MAX_RECORDS} fields, entries and items; ${HINT}`, Code.InvalidArgument);
}

/** What is to be looked into, by the number of the field: a message, or numbers in one record. */
type Shape = ReadonlyMap<number, (() => Shape) | 'packed'>;

const shapes = new WeakMap<DescMessage, Shape>();

function shapeOf(schema: DescMessage): Shape {
  const known = shapes.get(schema);
  if (known !== undefined) return known;
  const shape = new Map(
    schema.fields.flatMap((field) => {
      const inner = innerOf(field);
      return inner === undefined ? [] : [[field.number, inner] as const];
    }),
  );
  shapes.set(schema, shape);
  return shape;
}

function innerOf(field: DescField): (() => Shape) | 'packed' | undefined {
  const { message } = field;
  if (message === undefined) return field.fieldKind === 'list' && field.packed ? 'packed' : undefined;
  if (field.fieldKind !== 'map') return () => shapeOf(message);
  const entry = new Map([[2, () => shapeOf(message)]]);
  return () => entry;
}

/** @returns how many of `left` records are left after a message; negative: it has more, and was not read to its end */
function leftAfter(shape: Shape, reader: BinaryReader, end: number, left: number, depth: number): number {
  let rest = left;
  while (reader.pos < end && rest >= 0) {
    const [number, type] = reader.tag();
    rest--;
    if (type !== WireType.LengthDelimited) {
      reader.skip(type, number);
      continue;
    }
    const length = reader.uint32();
    const stop = reader.pos + length;
    const inner = shape.get(number);
    if (inner === 'packed') rest -= length;
    else if (inner !== undefined && depth < MAX_DEPTH) rest = leftAfter(inner(), reader, stop, rest, depth + 1);
    reader.pos = stop;
  }
  return rest;
}
