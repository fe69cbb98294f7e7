import { create, type DescMessage, type Message, type MessageShape } from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator, type Validator, type Violation, violationsToProto } from '@bufbuild/protovalidate';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';

import { fieldError } from '../field-error.ts';
import { findQuickFault } from './quick-faults.ts';
import { sentValue } from './sent-value.ts';

/** More would not help a person, and a list of thousands of bad items must not become a message of megabytes. */
const MAX_VIOLATIONS = 10;

/**
 * Checks requests against the rules in the schema. A violation is `invalid_argument`; the message names each wrong field
 * by its path and the value that was sent, the detail is a `buf.validate.Violations`.
 *
 * @param schemas Requests whose rules are compiled at once: the first compilation takes some 90 ms, which no caller should
 * wait for.
 */
export function createValidation(schemas: readonly DescMessage[]): Interceptor {
  const validator = createValidator();
  for (const schema of schemas) validator.validate(schema, create(schema));
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
  const fault = findQuickFault(schema, message);
  if (fault !== undefined) throw fieldError(fault.path, fault.problem);
  const result = validator.validate(schema, message);
  if (result.kind === 'valid') return;
  if (result.kind === 'error') throw result.error;
  const shown = result.violations.slice(0, MAX_VIOLATIONS);
  const more = result.violations.length - shown.length;
  const text =
    shown.map((violation) => describe(violation, message)).join('; ') + (more > 0 ? `; and ${more} more` : '');
  const error = new ConnectError(text, Code.InvalidArgument);
  const [value, desc] = violationsToProto(shown);
  error.details.push({ desc, value });
  throw error;
}

function describe(violation: Violation, message: Message): string {
  const path = pathToString(violation.field);
  const subject = violation.forKey ? `key of ${path}` : path;
  // A key is told in the path.
  const sent = violation.forKey ? undefined : sentValue(message, violation.field);
  const problem = sent === undefined ? violation.message : `${violation.message}, got ${sent}`;
  return subject === '' ? problem : `${subject}: ${problem}`;
}
