import { Command } from 'commander';
import { addRequestOptions, createRequest, type RequestFlags } from '../execution/request-options.ts';
import { runRequest } from '../execution/run-request.ts';

interface Flags extends RequestFlags {
  version?: string;
}

export function createRunCommand(): Command {
  const command = new Command('run')
    .description('Run a registered module and show its result.')
    .argument('<module>', 'name of the module')
    .option('--version <version>', 'version of the module (default the latest)')
    .action(async (module: string, flags: Flags) => {
      await runRequest(await createRequest({ case: 'module', value: module }, flags.version ?? '', flags), flags);
    });
  return addRequestOptions(command);
}
