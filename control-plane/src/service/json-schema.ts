import type { JsonObject } from '@bufbuild/protobuf';
import { documentFault, HarrierError, messageOf, OutOfTimeError, withinTime } from '@harrier/shared';
import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { cut, shown } from '../workflow/shown-value.ts';
import { compilePattern, PatternError } from './linear-pattern.ts';

/** Compiled schemas that are kept; each costs some 10 KiB. */
const CACHE_ENTRIES = 500;
/** Errors that are told of one document. */
const MAX_ERRORS = 5;
/** A schema becomes code; that of the largest here takes less than a second to make. */
const MAX_SCHEMA_BYTES = 128 * 1024;
const COMPILE_TIMEOUT_MS = 5_000;
/** How long all other callers may be held up by one document. */
const CHECK_TIMEOUT_MS = 500;
/** Bytes of schema times bytes of document that are checked in a few milliseconds, whatever they say. */
const QUICK_WORK = 16 * 1024 * 1024;
/** What can take more time than size of schema times size of document. */
const UNBOUNDED = /"(?:\$ref|\$dynamicRef|\$recursiveRef|uniqueItems)"/;

interface Compiled {
  schemaBytes: number;
  unbounded: boolean;
  /** Stops at the first error. */
  validate: ValidateFunction;
  /** Finds all errors; made when it is first wanted. */
  thorough: ValidateFunction | undefined;
}

const compiled = new Map<string, Compiled>();

/**
 * Checks that a schema is one (JSON Schema 2020-12) of bounded size and depth, whose patterns can be matched in linear time.
 * References to other documents are not followed.
 * @throws HarrierError invalid_argument naming `field`, or the place of a pattern below it.
 */
export function checkSchema(schema: JsonObject, field: string): void {
  const text = JSON.stringify(schema);
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_SCHEMA_BYTES) {
    throw new HarrierError('invalid_argument', `${field} has ${bytes} bytes; at most ${MAX_SCHEMA_BYTES} are allowed`, {
      field,
    });
  }
  const fault = documentFault(schema);
  if (fault !== undefined) {
    throw new HarrierError('invalid_argument', `${field}${fault.path}: ${fault.problem}`, { field });
  }
  compile(text, schema, field);
}

/**
 * What is wrong with a value, for people, with JSON pointers; undefined when it satisfies the schema. A value whose check
 * takes too long does not satisfy it.
 * @param bytes size of the value as JSON text
 */
export function violationsOf(schema: JsonObject, cacheKey: string, value: unknown, bytes: number): string | undefined {
  const known = compile(cacheKey, schema, 'schema');
  const isQuick = !known.unbounded && known.schemaBytes * bytes <= QUICK_WORK;
  const { validate } = known;
  try {
    if (isQuick ? validate(value) : withinTime(CHECK_TIMEOUT_MS, () => validate(value))) return undefined;
  } catch (error) {
    if (!(error instanceof OutOfTimeError)) throw error;
    return `it could not be checked: ${error.message}`;
  }
  if (!isQuick) return (validate.errors ?? []).slice(0, MAX_ERRORS).map(describe).join('; ');
  known.thorough ??= createAjv({ allErrors: true }).compile(schema);
  known.thorough(value);
  return (known.thorough.errors ?? []).slice(0, MAX_ERRORS).map(describe).join('; ');
}

function compile(key: string, schema: JsonObject, field: string): Compiled {
  const known = compiled.get(key);
  if (known !== undefined) return known;
  const text = JSON.stringify(schema);
  let validate: ValidateFunction;
  try {
    validate = withinTime(COMPILE_TIMEOUT_MS, () => createAjv({ allErrors: false }).compile(schema));
  } catch (cause) {
    if (cause instanceof PatternError) throw unusablePattern(schema, field, cause);
    throw new HarrierError('invalid_argument', `${field} is not a JSON Schema: ${messageOf(cause)}`, { field, cause });
  }
  if (compiled.size >= CACHE_ENTRIES) compiled.clear();
  const fresh = {
    schemaBytes: Buffer.byteLength(text),
    unbounded: UNBOUNDED.test(text),
    validate,
    thorough: undefined,
  };
  compiled.set(key, fresh);
  return fresh;
}

/** One instance each: ids of one tenant's schemas must not be visible to another's. */
function createAjv({ allErrors }: { allErrors: boolean }): Ajv2020 {
  // `code` names the engine in code that Ajv can be asked to print; it is not.
  const regExp = Object.assign((pattern: string) => compilePattern(pattern), { code: 'compilePattern' });
  const ajv = new Ajv2020({ strict: false, allErrors, validateFormats: true, logger: false, code: { regExp } });
  addFormats.default(ajv);
  return ajv;
}

function unusablePattern(schema: JsonObject, field: string, cause: PatternError): HarrierError {
  const place = `${field}${placeOf(cause.pattern, schema) ?? ''}`;
  const message = `${place}: the pattern ${JSON.stringify(cause.pattern)} cannot be used: ${cause.message}`;
  return new HarrierError('invalid_argument', message, { field: place, cause });
}

/** Where a pattern first stands in a schema, for example `.properties.name.pattern`. */
function placeOf(pattern: string, schema: unknown): string | undefined {
  if (typeof schema !== 'object' || schema === null) return undefined;
  for (const [key, child] of Object.entries(schema)) {
    const step = Array.isArray(schema) ? `[${key}]` : `.${key}`;
    if (key === 'pattern' && child === pattern) return step;
    if (key === 'patternProperties' && typeof child === 'object' && child !== null && Object.hasOwn(child, pattern)) {
      return step;
    }
    const below = placeOf(pattern, child);
    if (below !== undefined) return `${step}${below}`;
  }
  return undefined;
}

/** Names in the document are as long as its sender likes, and errors are kept and told to others: each part is cut. */
function describe({ instancePath, message, keyword, params }: ErrorObject): string {
  const where = instancePath === '' ? '$' : cut(instancePath);
  const extra = params.additionalProperty ?? params.allowedValues;
  return `${where} ${cut(message ?? keyword)}${extra === undefined ? '' : ` (${shown(extra)})`}`;
}
