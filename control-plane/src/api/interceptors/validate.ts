import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator, type Validator, type Violation, violationsToProto } from '@bufbuild/protovalidate';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';

/** More would not help a person, and a list of thousands of bad items must not become a message of megabytes. */
const MAX_VIOLATIONS = 10;

/**
 * Checks requests against the rules in the schema. A violation is `invalid_argument`; the message names each wrong field
 * by its path, the detail is a `buf.validate.Violations`.
 */
export function createValidation(): Interceptor {
  const validator = createValidator({ regexMatch: createRegexMatch() });
  return (next) => (request) => {
    if (request.stream) {
      return next({ ...request, message: validateStream(validator, request.method.input, request.message) });
    }
    validate(validator, request.method.input, request.message);
    return next(request);
  };
}

async function* validateStream<T extends DescMessage>(
  validator: Validator,
  schema: T,
  messages: AsyncIterable<MessageShape<T>>,
): AsyncGenerator<MessageShape<T>> {
  for await (const message of messages) {
    validate(validator, schema, message);
    yield message;
  }
}

function validate<T extends DescMessage>(validator: Validator, schema: T, message: MessageShape<T>): void {
  const result = validator.validate(schema, message);
  if (result.kind === 'valid') return;
  if (result.kind === 'error') throw result.error;
  const shown = result.violations.slice(0, MAX_VIOLATIONS);
  const more = result.violations.length - shown.length;
  const text = shown.map(describe).join('; ') + (more > 0 ? `; and ${more} more` : '');
  const error = new ConnectError(text, Code.InvalidArgument);
  const [value, desc] = violationsToProto(shown);
  error.details.push({ desc, value });
  throw error;
}

function describe(violation: Violation): string {
  const path = pathToString(violation.field);
  const subject = violation.forKey ? `key of ${path}` : path;
  return subject === '' ? violation.message : `${subject}: ${violation.message}`;
}

/**
 * The patterns come from our own schema, none of them backtracks more than linearly, so the engine's own expressions
 * replace protovalidate's RE2 in JavaScript, which costs several times more.
 */
function createRegexMatch(): (pattern: string, against: string) => boolean {
  const compiled = new Map<string, RegExp>();
  return (pattern, against) => {
    let expression = compiled.get(pattern);
    if (expression === undefined) {
      expression = new RegExp(pattern, 'u');
      compiled.set(pattern, expression);
    }
    return expression.test(against);
  };
}
