import { readFile } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { ConnectError } from '@connectrpc/connect';
import { messageOf } from '@harrier/shared';
import { type CreateModuleResponse, type Module, ModuleSchema } from '@harrier/shared/gen/module';
import { type FileModule, formatProblem, loadModulesFile } from '@harrier/shared/modules-file';
import { Command } from 'commander';
import { withClients } from '../connection/clients.ts';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { addEnvironmentOptions, type EnvironmentFlags, environmentOf } from '../execution/environment-options.ts';
import { CliError } from '../failure.ts';
import { formatMessage } from '../output/json.ts';
import { write } from '../output/terminal.ts';

/** What a modules file says itself. */
const FLAGS_OF_A_FILE = [
  ...(['name', 'version', 'handler', 'description', 'tag'] as const),
  ...(['requirement', 'requirements', 'python', 'image'] as const),
];

interface Flags extends ConnectionFlags, EnvironmentFlags {
  name?: string;
  version?: string;
  handler?: string;
  description?: string;
  tag?: string[];
}

export function createPushCommand(): Command {
  const command = new Command('push')
    .description('Register the modules of a modules file, or one Python file as a module. A version never changes.')
    .argument('<file>', 'FILE.yaml in the form of modules.yaml, or FILE.py')
    .option('--name <name>', 'of FILE.py: name of the module (default the name of the file)')
    .option('--version <version>', 'of FILE.py: semantic version, for example 1.0.0')
    .option('--handler <name>', 'of FILE.py: function to call (default handler)')
    .option('--description <text>', 'of FILE.py: for people')
    .option('--tag <tag>', 'of FILE.py: word to find it by, can be repeated', (tag: string, before: string[] = []) => [
      ...before,
      tag,
    ])
    .action(async (file: string, flags: Flags) => {
      if (/^\.ya?ml$/.test(extname(file))) await pushModulesFile(file, flags);
      else await pushPython(file, flags);
    });
  return addConnectionOptions(addEnvironmentOptions(command));
}

async function pushPython(file: string, flags: Flags): Promise<void> {
  if (flags.version === undefined) throw new CliError(`give ${file} a version, for example --version 1.0.0`);
  let code: string;
  try {
    code = await readFile(file, 'utf8');
  } catch (cause) {
    throw new CliError(`${file} cannot be read: ${messageOf(cause)}`, undefined, { cause });
  }
  const module = create(ModuleSchema, {
    name: flags.name ?? basename(file, '.py').replaceAll('_', '-'),
    version: flags.version,
    code,
    handler: flags.handler ?? '',
    description: flags.description ?? '',
    tags: flags.tag ?? [],
  });
  const environment = await environmentOf(flags);
  if (environment !== undefined) module.environment = environment;
  await withClients(flags, async ({ modules }) => await tell(await modules.createModule({ module }), flags));
}

async function pushModulesFile(file: string, flags: Flags): Promise<void> {
  const given = FLAGS_OF_A_FILE.filter((name) => flags[name] !== undefined);
  if (given.length > 0)
    throw new CliError(`--${given.join(', --')} cannot be given with a modules file, which says it itself`);
  const entries = await readModules(file);
  await withClients(flags, async ({ modules }) => {
    for (const entry of entries) {
      await tell(await inFile(file, entry, () => modules.createModule({ module: entry.module })), flags);
    }
  });
}

/** @throws CliError with every problem of the file */
export async function readModules(file: string): Promise<FileModule[]> {
  const { modules, problems } = await loadModulesFile(file);
  if (problems.length > 0) {
    throw new CliError(problems.map((problem) => formatProblem(file, problem)).join('\n'));
  }
  return modules;
}

/** Makes a call about a module of a file; an error of it names the line. */
export async function inFile<Response>(
  file: string,
  entry: FileModule,
  call: () => Promise<Response>,
): Promise<Response> {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    const field = /^module\.([\w.]+)/.exec(error.rawMessage)?.[1] ?? 'version';
    const message = `${entry.nameOf(field)}: ${error.rawMessage}`;
    const placed = formatProblem(file, { position: entry.positionOf(field), message });
    throw new ConnectError(placed, error.code, undefined, undefined, error.cause);
  }
}

async function tell({ module }: CreateModuleResponse, flags: Flags): Promise<void> {
  if (module === undefined) return;
  await write(flags.json === true ? formatMessage(ModuleSchema, module) : `${describe(module)}\n`);
}

function describe({ name, version, digest }: Module): string {
  return `${name} ${version} is registered (${digest.slice(0, 12)})`;
}
