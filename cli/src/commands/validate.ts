import { type ValidateModuleResponse, ValidateModuleResponseSchema } from '@harrier/shared/gen/module';
import { Command } from 'commander';
import { withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { describeError } from '../execution/describe.ts';
import { formatBytes } from '../execution/describe-execution.ts';
import { CliError } from '../failure.ts';
import { formatMessage } from '../output/json.ts';
import { formatTable } from '../output/table.ts';
import { write } from '../output/terminal.ts';
import { inFile, readModules } from './push.ts';

export function createValidateCommand(): Command {
  const command = new Command('validate')
    .description(
      'Check the modules of a modules file and let agents resolve what they run in, without registering any.',
    )
    .argument('<file>', 'FILE.yaml in the form of modules.yaml')
    .action(async (file: string, flags: ConnectionFlags) => {
      const entries = await readModules(file);
      const failed: string[] = [];
      await withClients(flags, async ({ modules }) => {
        for (const entry of entries) {
          const { module } = entry;
          const name = `${module.name} ${module.version}`;
          const answer = await inFile(file, entry, () => modules.validateModule({ module }));
          await write(
            flags.json === true ? formatMessage(ValidateModuleResponseSchema, answer) : describe(name, answer),
          );
          if (answer.error !== undefined) failed.push(name);
        }
      });
      if (failed.length > 0) throw new CliError(`${failed.join(', ')} cannot be prepared`);
    });
  return addConnectionOptions(command);
}

function describe(name: string, { lock, sizeBytes, agents, error }: ValidateModuleResponse): string {
  if (error !== undefined) return `${name}: ${describeError(error)}\n`;
  const size = sizeBytes === 0n ? '' : `, ${formatBytes(sizeBytes)}`;
  const able = agents.filter(({ reason }) => reason === '');
  const held = able.filter((agent) => agent.held).length;
  const rows = agents.map(({ name: agent, held: has, reason }) => [
    agent,
    reason === '' ? (has ? 'ready' : 'to be prepared') : reason,
  ]);
  const heading = `${name}: ${able.length} of ${agents.length} agents can run it, ${held} have it ready${size}\n`;
  return heading + formatTable(['AGENT', 'ENVIRONMENT'], rows) + (lock === '' ? '' : `${lock.trimEnd()}\n`);
}
