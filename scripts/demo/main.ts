import { isDeepStrictEqual } from 'node:util';
import { callConnect, callRest, createCaller, showStream } from './calls.ts';
import { type RunningHarrier, startHarrier } from './harrier.ts';

const NAME = 'Ada';
const EXPECTED = { message: `Hello, ${NAME}!` };

try {
  await main();
} catch (error) {
  process.stderr.write(`npm run demo: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  say('Starting a control plane on its own PostgreSQL, and an agent …');
  const harrier = await startHarrier(process.argv.slice(2));
  try {
    say(`Up on ${harrier.url}; code runs ${harrier.sandboxed ? 'in a sandbox' : 'WITHOUT a sandbox'}.`);
    await showCalls(harrier);
    say('\nThe same answer three times. Stopping …');
  } finally {
    await harrier.stop();
  }
}

async function showCalls(harrier: RunningHarrier): Promise<void> {
  const caller = createCaller(harrier);
  const answers: [string, unknown][] = [];

  say('\ngRPC, streamed: harrier.v1.ExecutionService/ExecuteStream, module hello-world');
  answers.push(['gRPC', await showStream(caller, 'hello-world', { name: NAME }, process.stdout)]);

  say('\nConnect, as JSON: POST /harrier.v1.ExecutionService/Execute');
  answers.push(['Connect', await callConnect(harrier, 'hello-world', { name: NAME })]);
  say(JSON.stringify(answers.at(-1)?.[1]));

  say('\nREST: POST /run/hello-world');
  answers.push(['REST', await callRest(harrier, 'hello-world', { name: NAME })]);
  say(JSON.stringify(answers.at(-1)?.[1]));

  say('\ngRPC, streamed: module count, output as it is printed');
  const counted = await showStream(caller, 'count', { to: 3 }, process.stdout);

  const wrong = answers.filter(([, answer]) => !isDeepStrictEqual(answer, EXPECTED)).map(([name]) => name);
  if (wrong.length > 0) throw new Error(`${wrong.join(', ')} did not answer ${JSON.stringify(EXPECTED)}`);
  if (!isDeepStrictEqual(counted, { counted: 3 })) throw new Error(`count answered ${JSON.stringify(counted)}`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
