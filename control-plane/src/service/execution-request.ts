import { create, type JsonObject } from '@bufbuild/protobuf';
import { formatTraceParent, HarrierError, parseTraceParent } from '@harrier/shared';
import {
  type CreateExecutionRequest,
  CreateExecutionRequestSchema,
  type ExecuteRequest,
  type ExecuteStreamRequest,
} from '@harrier/shared/gen/execution';
import { checkEnvironment, checkImage, checkNetwork } from './environment-spec.ts';
import { checkStructure, parseJsonObject } from './json-document.ts';
import { violationsOf } from './json-schema.ts';
import type { StoredModule } from './module-service.ts';
import type { ResolvedExecution } from './resolved-execution.ts';
import { refuseNul } from './storable.ts';

const MAX_ASSIGNMENT_BYTES = 15 * 1024 * 1024;
const MAX_INPUT_BYTES = 8 * 1024 * 1024;

/** The three requests that start an execution have the same fields. */
export type ExecutionRequest = CreateExecutionRequest | ExecuteRequest | ExecuteStreamRequest;

/** Texts that end up in the database or as arguments and variables of a process. @throws HarrierError invalid_argument with the field */
export function checkTexts({ target, env, idempotencyKey, limits, concurrency }: ExecutionRequest): void {
  checkNetwork(limits, 'limits');
  refuseNul('idempotency_key', idempotencyKey);
  refuseNul('concurrency.key', concurrency?.key ?? '');
  for (const [name, value] of Object.entries(env)) refuseNul(`env["${name}"]`, value);
  if (target.case === 'code') {
    const { source, environment, language } = target.value;
    refuseNul('code.source', source);
    checkEnvironment(environment, { language, preload: [] }, 'code.environment');
  }
  if (target.case === 'command') {
    checkEnvironment(target.value.environment, { language: '', preload: [] }, 'command.environment');
    for (const [i, text] of target.value.argv.entries()) refuseNul(`command.argv[${i}]`, text);
  }
  if (target.case === 'image') {
    checkImage(target.value.image, 'image.image');
    for (const [i, text] of target.value.argv.entries()) refuseNul(`image.argv[${i}]`, text);
  }
}

/** @returns the input as JSON, and whether it came as text; @throws HarrierError invalid_argument when it is none or not what the module takes */
export function checkedInput(
  request: ExecutionRequest,
  module: StoredModule | undefined,
): { inputJson: string; jsonText: boolean } {
  const form = request.inputForm;
  const jsonText = form.case === 'inputJson';
  const inputJson =
    form.case === 'inputJson'
      ? form.value
      : form.case === 'input'
        ? JSON.stringify(form.value satisfies JsonObject)
        : '{}';
  const field = jsonText ? 'input_json' : 'input';
  if (form.case === 'input') checkStructure(form.value, field);
  if (Buffer.byteLength(inputJson) > MAX_INPUT_BYTES) {
    throw new HarrierError('invalid_argument', `${field} is larger than ${MAX_INPUT_BYTES} bytes`, { field });
  }
  const value = parseJsonObject(inputJson, field);
  const schema = module?.module.inputSchema;
  if (module !== undefined && schema !== undefined) {
    const violations = violationsOf(schema, `${module.module.digest} input`, value, Buffer.byteLength(inputJson));
    if (violations !== undefined) {
      throw new HarrierError(
        'invalid_argument',
        `${field} does not satisfy the input schema of ${module.module.name} ${module.module.version}: ${violations}`,
        { field },
      );
    }
  }
  return { inputJson, jsonText };
}

/** The request as it is stored: its input has a column of its own. */
export function storedRequest(request: ExecutionRequest, callTraceParent: string): CreateExecutionRequest {
  const { $typeName, inputForm, ...fields } = request;
  const place = parseTraceParent(request.traceParent || callTraceParent);
  const traceParent = place === undefined ? '' : formatTraceParent(place);
  return create(CreateExecutionRequestSchema, { ...fields, traceParent });
}

/** An assignment must fit into a batch of the link, which is 16 MiB. */
export function checkAssignmentSize({ program, inputJson }: ResolvedExecution, requestBytes: number): void {
  const code = program.kind === 'module' ? Buffer.byteLength(program.stored.module.code) : 0;
  const bytes = requestBytes + code + Buffer.byteLength(inputJson);
  if (bytes <= MAX_ASSIGNMENT_BYTES) return;
  throw new HarrierError(
    'invalid_argument',
    `code, input, env and argv have ${bytes} bytes together; at most ${MAX_ASSIGNMENT_BYTES} can be given to an agent`,
    { field: 'input' },
  );
}
