import { Isolation_Level as Isolation } from '@harrier/shared/gen/agent';
import { isTerminal, paint, write } from '../output/terminal.ts';
import type { ReadyHost } from './host.ts';

/** Tells whoever started it how to go on. */
export async function announce(host: ReadyHost, json: boolean): Promise<void> {
  const sandboxed = host.agent.isolation?.level === Isolation.SANDBOX;
  if (json) {
    const { url, grpc, metrics, keyFile, dataDirectory, agent } = host;
    await write(`${JSON.stringify({ url, grpc, metrics, keyFile, dataDirectory, agentId: agent.id, sandboxed })}\n`);
    return;
  }
  const title = (text: string): string => paint('bold', text);
  const warning = sandboxed ? '' : `\n${paint(['bold', 'yellow'], 'Code runs WITHOUT a sandbox, as your own user.')}\n`;
  await write(`${title('Harrier is up')} on ${paint('cyan', host.url)}
${warning}
  admin key  ${host.keyFile}
  agent      ${host.agent.name} (${host.agent.id}), ${host.agent.slots} slots
  metrics    http://${host.metrics}/metrics

${title('Try it:')}
  curl -X POST ${host.url}/harrier.v1.ExecutionService/Execute \\
    -H "Authorization: Bearer $(cat ${host.keyFile})" -H 'Content-Type: application/json' \\
    -d '{"code": {"source": "def handler(input):\\n    return {\\"hello\\": input[\\"name\\"]}"}, "input": {"name": "you"}}'
${isTerminal() ? `\n${paint('dim', 'Ctrl-C stops it.')}\n` : ''}`);
}
