import type { JsonObject } from '@bufbuild/protobuf';
import { HarrierError, messageOf } from '@harrier/shared';
import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

/** Compiled schemas that are kept; each costs some 10 KiB. */
const CACHE_ENTRIES = 500;
/** Errors that are told of one document. */
const MAX_ERRORS = 5;

const compiled = new Map<string, ValidateFunction>();

/**
 * Checks that a schema is one (JSON Schema 2020-12). References to other documents are not followed.
 * @throws HarrierError invalid_argument naming `field`.
 */
export function checkSchema(schema: JsonObject, field: string): void {
  compile(JSON.stringify(schema), schema, field);
}

/** What is wrong with a value, for people, with JSON pointers; undefined when it satisfies the schema. */
export function violationsOf(schema: JsonObject, cacheKey: string, value: unknown): string | undefined {
  const validate = compile(cacheKey, schema, 'schema');
  if (validate(value)) return undefined;
  return (validate.errors ?? []).slice(0, MAX_ERRORS).map(describe).join('; ');
}

function compile(key: string, schema: JsonObject, field: string): ValidateFunction {
  const known = compiled.get(key);
  if (known !== undefined) return known;
  let validate: ValidateFunction;
  try {
    // One instance each: ids of one tenant's schemas must not be visible to another's.
    const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: true, logger: false });
    addFormats.default(ajv);
    validate = ajv.compile(schema);
  } catch (cause) {
    throw new HarrierError('invalid_argument', `${field} is not a JSON Schema: ${messageOf(cause)}`, { field, cause });
  }
  if (compiled.size >= CACHE_ENTRIES) compiled.clear();
  compiled.set(key, validate);
  return validate;
}

function describe(error: ErrorObject): string {
  const where = error.instancePath === '' ? '$' : error.instancePath;
  const extra = error.params.additionalProperty ?? error.params.allowedValues;
  return `${where} ${error.message ?? error.keyword}${extra === undefined ? '' : ` (${JSON.stringify(extra)})`}`;
}
