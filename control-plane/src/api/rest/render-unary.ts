import { type DescMessage, type Message, toJson, toJsonString } from '@bufbuild/protobuf';
import { Code, ConnectError, type HandlerContext } from '@connectrpc/connect';
import { type ExecutionError, ExecutionErrorSchema } from '@harrier/shared/gen/error';
import { type Execution, Execution_State } from '@harrier/shared/gen/execution';
import { Rest_Rendering } from '@harrier/shared/gen/options';
import type { HttpResponse } from '../http-types.ts';
import { headersOf, sendText } from '../response-writer.ts';
import { executionErrorStatus } from './execution-status.ts';
import type { RestRoute } from './route-table.ts';

export type UnaryRenderer = (answer: Message, response: HttpResponse, context: HandlerContext) => void;

const JSON_TYPE = 'application/json';

export function createUnaryRenderer(route: RestRoute, rendering: Rest_Rendering): UnaryRenderer {
  if (rendering === Rest_Rendering.EXECUTION_OUTPUT) return renderExecutionOutput;
  const encode = createJsonEncoder(route.method.output, route.responseBody);
  return (answer, response, context) => {
    sendText(response, 200, JSON_TYPE, headersOf(context.responseHeader), encode(answer));
  };
}

function createJsonEncoder(schema: DescMessage, responseBody: string): (answer: Message) => string {
  if (responseBody === '') return (answer) => toJsonString(schema, answer);
  const field = schema.fields.find(({ name }) => name === responseBody);
  if (field === undefined) throw new Error(`google.api.http names no field of ${schema.typeName}: ${responseBody}`);
  if (field.fieldKind === 'message' && field.oneof === undefined) {
    return (answer) => {
      const value = (answer as Message & Record<string, unknown>)[field.localName];
      return value === undefined ? '{}' : toJsonString(field.message, value as Message);
    };
  }
  return (answer) => {
    const json = toJson(schema, answer, { alwaysEmitImplicit: true }) as Record<string, unknown>;
    return JSON.stringify(json[field.jsonName] ?? null);
  };
}

const renderExecutionOutput: UnaryRenderer = (answer, response, context) => {
  const { execution } = answer as Message & { execution?: Execution };
  if (execution === undefined) throw new ConnectError('the response has no execution', Code.Internal);
  const headers = { ...headersOf(context.responseHeader), 'harrier-execution-id': execution.id };
  if (execution.state === Execution_State.SUCCEEDED) {
    sendText(response, 200, JSON_TYPE, headers, execution.outputJson);
    return;
  }
  const error =
    execution.error ?? ({ $typeName: ExecutionErrorSchema.typeName, code: 0, message: '' } as ExecutionError);
  sendText(response, executionErrorStatus(error.code), JSON_TYPE, headers, toJsonString(ExecutionErrorSchema, error));
};
