import { create } from '@bufbuild/protobuf';
import { type ManagedService, ManagedService_State as State } from '@harrier/shared/gen/agent';
import { ManagedServicesSchema } from '@harrier/shared/gen/link';
import { Command } from 'commander';
import { type Clients, withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { formatTime, nameIn } from '../execution/describe.ts';
import { formatMessage } from '../output/json.ts';
import { formatTable } from '../output/table.ts';
import { paint, type Style, write } from '../output/terminal.ts';

const STATE_STYLES: Readonly<Record<string, Style>> = {
  RUNNING: 'green',
  HEALTHY: 'green',
  UNHEALTHY: 'red',
  FAILED: 'red',
  BACKING_OFF: 'yellow',
};

/** @param findAgent the id of the agent that has this name or id */
export function createServicesCommand(
  findAgent: (agents: Clients['agents'], wanted: string) => Promise<string>,
): Command {
  const command = new Command('services')
    .description('Show the containers that an agent keeps up.')
    .argument('<agent>', 'id or name of the agent')
    .action(async (wanted: string, flags: ConnectionFlags) => {
      const services = await withClients(flags, async ({ agents }) => {
        const { agent } = await agents.getAgent({ id: await findAgent(agents, wanted) });
        return agent?.services ?? [];
      });
      if (flags.json === true) {
        await write(formatMessage(ManagedServicesSchema, create(ManagedServicesSchema, { services })));
      } else {
        const heading = ['NAME', 'STATE', 'ENVIRONMENT', 'IMAGE', 'RESTARTS', 'STARTED', 'MESSAGE'];
        await write(formatTable(heading, services.map(rowOf)));
      }
    });
  return addConnectionOptions(command);
}

function rowOf(service: ManagedService): string[] {
  const state = nameIn(State, service.state);
  return [
    service.name,
    paint(STATE_STYLES[state] ?? 'dim', state),
    service.environment,
    service.image,
    String(service.restarts),
    formatTime(service.startTime) || '-',
    service.message || '-',
  ];
}
