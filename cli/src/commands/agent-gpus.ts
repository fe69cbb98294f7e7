import { Hardware_GpuSchema as GpuSchema, Hardware_Gpu_State as State } from '@harrier/shared/gen/agent';
import { Command } from 'commander';
import { type Clients, withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { nameIn } from '../execution/describe.ts';
import { CliError } from '../failure.ts';
import { formatMessage } from '../output/json.ts';
import { write } from '../output/terminal.ts';

/**
 * The command fails when the card stays quarantined.
 * @param findAgent the id of the agent that has this name or id
 */
export function createClearGpuCommand(
  findAgent: (agents: Clients['agents'], wanted: string) => Promise<string>,
): Command {
  const command = new Command('clear-gpu')
    .description('Take a quarantined GPU back into use; its agent looks at it first.')
    .argument('<agent>', 'id or name of the agent')
    .argument('<gpu>', 'UUID or index of the card, or UUID of the MIG instance')
    .action(async (wanted: string, gpu: string, flags: ConnectionFlags) => {
      await withClients(flags, async ({ agents }) => {
        const id = await findAgent(agents, wanted);
        const gpuUuid = await uuidOf(agents, id, gpu);
        const { gpu: card } = await agents.clearGpu({ id, gpuUuid });
        if (card === undefined) throw new CliError('the answer has no card');
        const unit = card.migInstances.find(({ uuid }) => uuid === gpuUuid) ?? card;
        if (flags.json === true) await write(formatMessage(GpuSchema, card));
        else await write(`${gpuUuid} ${nameIn(State, unit.state)}\n`);
        if (unit.state === State.QUARANTINED) throw new CliError(`${gpuUuid} stays quarantined: ${unit.stateReason}`);
      });
    });
  return addConnectionOptions(command);
}

async function uuidOf(agents: Clients['agents'], id: string, wanted: string): Promise<string> {
  if (!/^\d+$/.test(wanted)) return wanted;
  const { agent } = await agents.getAgent({ id });
  const found = agent?.hardware?.gpus.find(({ index }) => index === Number(wanted));
  if (found === undefined)
    throw new CliError(`agent ${agent?.name} has no GPU ${wanted}; see harrier agents get ${agent?.name}`);
  return found.uuid;
}
