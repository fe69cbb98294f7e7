import { randomUUID } from 'node:crypto';
import { type DescMessage, type MessageShape, toJson } from '@bufbuild/protobuf';
import { type Execution, ExecutionSchema } from '@harrier/shared/gen/execution';
import { isTerminal } from './terminal.ts';

/** A message in its JSON form, indented for a person, else on one line. */
export function formatMessage<T extends DescMessage>(schema: T, message: MessageShape<T>): string {
  return `${JSON.stringify(toJson(schema, message), undefined, indentation())}\n`;
}

/**
 * An execution in its JSON form; `output` and `input` are the documents themselves, not texts that hold them, with every
 * digit as it was written.
 */
export function formatExecution(execution: Execution): string {
  return `${executionText(execution, indentation())}\n`;
}

/** As `formatExecution`, always on one line and without its end. */
export function executionText(execution: Execution, indent?: number): string {
  const { outputJson, inputJson, ...json } = toJson(ExecutionSchema, execution) as Record<string, unknown>;
  const documents = new Map<string, string>();
  for (const [name, text] of [
    ['input', inputJson],
    ['output', outputJson],
  ] as const) {
    if (typeof text !== 'string') continue;
    const placeholder = randomUUID();
    documents.set(placeholder, text);
    json[name] = placeholder;
  }
  let text = JSON.stringify(json, undefined, indent);
  for (const [placeholder, document] of documents) text = text.replace(`"${placeholder}"`, () => document.trim());
  return text;
}

/** TC39 "JSON.parse source text access", in V8 since 11.4; TypeScript's library does not have it yet. */
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };

/** A JSON document for a person: indented, numbers exactly as they were written. */
export function prettyJson(text: string): string {
  const exact = JSON.parse(text, (_key, value: unknown, context?: { source?: string }) =>
    typeof value === 'number' && context?.source !== undefined ? rawJSON(context.source) : value,
  );
  return JSON.stringify(exact, undefined, 2);
}

function indentation(): number | undefined {
  return isTerminal() ? 2 : undefined;
}
