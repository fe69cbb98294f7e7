// Runs a module from TypeScript and shows its output while it runs. From the root of the repository, with
// `npm start -- --config examples/modules.yaml` running beside it:
//
//     npx node examples/typescript/client.ts
//
// In a project of your own: npm install @connectrpc/connect @connectrpc/connect-node @bufbuild/protobuf, and generate what
// is imported from @harrier/shared here from proto/ with buf and @bufbuild/protoc-gen-es.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createClient, type Interceptor } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { ExecutionService, Execution_State as State } from '@harrier/shared/gen/execution';

const { HARRIER_SERVER_URL, HARRIER_DATA_DIR, HARRIER_API_KEY } = process.env;
const key = HARRIER_API_KEY ?? readFileSync(join(HARRIER_DATA_DIR ?? '.harrier', 'admin.key'), 'utf8').trim();
const authorize: Interceptor = (next) => (request) => {
  request.header.set('Authorization', `Bearer ${key}`);
  return next(request);
};
// createConnectTransport or, in a browser, createGrpcWebTransport work as well: it is the same service on the same port.
const transport = createGrpcTransport({
  baseUrl: HARRIER_SERVER_URL ?? 'http://127.0.0.1:8000',
  interceptors: [authorize],
});
const executions = createClient(ExecutionService, transport);

// One call, one answer. A failed execution is an answer too: look at its state.
const { execution } = await executions.execute({
  target: { case: 'module', value: 'hello-world' },
  inputForm: { case: 'input', value: { name: 'TypeScript' } },
});
if (execution?.state !== State.SUCCEEDED) throw new Error(execution?.error?.message ?? 'no answer');
process.stdout.write(`${JSON.stringify(execution.output)}\n`);

// What it prints, as it prints it.
const stream = executions.executeStream({
  target: { case: 'module', value: 'count' },
  inputForm: { case: 'input', value: { to: 3 } },
});
for await (const { event } of stream) {
  if (event.case === 'log') process.stdout.write(event.value.data);
  if (event.case === 'progress') process.stdout.write(`${event.value.percent.toFixed(0)} % ${event.value.step}\n`);
  if (event.case === 'result') process.stdout.write(`${JSON.stringify(event.value.output)}\n`);
}
