import { create } from '@bufbuild/protobuf';
import { ListModulesResponseSchema, ListModuleVersionsResponseSchema, type Module } from '@harrier/shared/gen/module';
import { Command } from 'commander';
import { withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { formatTime } from '../execution/describe.ts';
import { formatMessage } from '../output/json.ts';
import { formatTable } from '../output/table.ts';
import { write } from '../output/terminal.ts';
import { limitOption, readPages } from './listing.ts';
import { createPushCommand } from './push.ts';
import { createValidateCommand } from './validate.ts';

interface ListFlags extends ConnectionFlags {
  tag?: string;
  environment?: string;
  prefix?: string;
  limit: number;
}

export function createModulesCommand(): Command {
  return new Command('modules')
    .description('Register, check, list and remove modules.')
    .addCommand(createPushCommand())
    .addCommand(createValidateCommand())
    .addCommand(createList())
    .addCommand(createRemove());
}

function createList(): Command {
  const command = new Command('ls')
    .description('List modules with their latest version, or all versions of one.')
    .argument('[name]', 'list the versions of this module, newest first')
    .option('--tag <tag>', 'only with this tag')
    .option('--environment <name>', 'only of this environment')
    .option('--prefix <text>', 'only names that start with this')
    .addOption(limitOption(100))
    .action(async (name: string | undefined, flags: ListFlags) => {
      const modules = await withClients(flags, async (clients) => await list(clients.modules, name, flags));
      if (flags.json !== true) {
        await write(
          formatTable(['NAME', 'VERSION', 'ENVIRONMENT', 'TAGS', 'REGISTERED', 'DESCRIPTION'], modules.map(rowOf)),
        );
        return;
      }
      const schema = name === undefined ? ListModulesResponseSchema : ListModuleVersionsResponseSchema;
      await write(formatMessage(schema, create(schema, { modules })));
    });
  return addConnectionOptions(command);
}

type Client = Parameters<Parameters<typeof withClients>[1]>[0]['modules'];

async function list(client: Client, name: string | undefined, flags: ListFlags): Promise<Module[]> {
  return await readPages(flags.limit, async (page) => {
    const { modules, nextPageToken } =
      name === undefined
        ? await client.listModules({
            ...page,
            tag: flags.tag ?? '',
            environment: flags.environment ?? '',
            namePrefix: flags.prefix ?? '',
          })
        : await client.listModuleVersions({ ...page, name });
    return { items: modules, nextPageToken };
  });
}

function rowOf(module: Module): string[] {
  return [
    module.name,
    module.version,
    module.environment?.kind.case ?? '',
    module.tags.join(',') || '-',
    formatTime(module.createTime),
    module.description.split('\n')[0] ?? '',
  ];
}

function createRemove(): Command {
  const command = new Command('rm')
    .description('Remove a module, or one version of it. What was accepted before still runs.')
    .argument('<name>', 'name of the module')
    .option('--version <version>', 'remove only this version')
    .action(async (name: string, flags: ConnectionFlags & { version?: string }) => {
      const { deletedVersions } = await withClients(
        flags,
        async ({ modules }) => await modules.deleteModule({ name, version: flags.version ?? '' }),
      );
      if (flags.json === true) await write(`${JSON.stringify({ name, deletedVersions })}\n`);
      else await write(`${name}: ${deletedVersions} ${deletedVersions === 1 ? 'version' : 'versions'} removed\n`);
    });
  return addConnectionOptions(command);
}
